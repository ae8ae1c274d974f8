"""Loading: detecting the format of an adapter file, reading it, and fitting it to the LoRA layers of a base model."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import assert_never

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from quadbench.artifacts import LORA_PREFIX
from quadbench.errors import AdapterError
from quadbench.quad.adapters import kohya, peft
from quadbench.quad.adapters.adapter import Adapter, LoraPair, OmittedPart
from quadbench.quad.adapters.kohya import flat_name, is_ldm, site_of_ldm
from quadbench.quad.adapters.lora_pairs import LoraReading, refuse, split_text_encoder
from quadbench.quad.model.lora import input_names, input_shapes
from quadbench.quad.model_files import PEFT_CONFIG, PEFT_TENSORS, AdapterFormat, adapter_file, check_tensor_file

_NEW_BASE = "list the adapter in a recipe, and build a base that has room for it with quadbench run RECIPE"
_OTHER_NAMES = "list the adapter in a recipe; only recipes resolve site names of the original Stable Diffusion code"
Shape = tuple[int, ...]
_IS_LORA = re.compile(r"\.lora|_lora\.(down|up)\.")  # the current naming, and that of attention processors
Read = Callable[[Mapping[str, torch.Tensor]], LoraReading]


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """The tensors and metadata of a safetensors file, as stored. Reading a file without tensors raises an error."""

    path: Path
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class SiteShape:
    """The shapes of a layer's LoRA tensors, without the rank axis: `down` is (in,) or (in, k, k), `up` is (out,) or (out, 1, 1).
    `rank` is the greatest rank that the layer takes, or None if any rank is allowed.
    """

    down: Shape
    up: Shape
    rank: int | None = None

    def shapes(self, rank: int) -> tuple[Shape, Shape]:
        """Return the shapes of `down` and `up` in a LoRA pair of rank `rank`, as (down shape, up shape)."""
        return (rank, *self.down), (self.up[0], rank, *self.up[1:])


@dataclass(frozen=True, kw_only=True)
class BaseSites:
    """A U-Net's layers that take LoRA, by name. `layers_per_block` is needed to translate original Stable Diffusion names."""

    slots: dict[str, SiteShape]
    layers_per_block: int | None = None


@dataclass(frozen=True, kw_only=True)
class AdapterReading:
    """The content read from an adapter's file or folder, the format found, and problems that did not prevent reading."""

    format: AdapterFormat
    because: str  # why the format was recognized
    path: Path  # the tensor file, or PEFT's folder
    reading: LoraReading
    left_out: OmittedPart | None = None


def load_adapter(
    name: str, path: Path, base: BaseSites, *, expected: AdapterFormat | None = None, unet_only: bool = False
) -> Adapter:
    """Return an adapter read from `path`, with the base model's layer names and shapes. Raise AdapterError on any problem."""
    content = read_adapter(name, path, unet_only=unet_only)
    if expected is not None and content.format is not expected:
        raise AdapterError(
            f"adapter '{name}': '{path}' has format {content.format} ({content.because}); the recipe says {expected}",
            hint=f"write source: {content.format}",
        )
    refuse(name, content.reading.problems)
    return fit_to_base(Adapter(name=name, pairs=content.reading.pairs, left_out=content.left_out), base)


def read_adapter(name: str, path: Path, *, unet_only: bool = False) -> AdapterReading:
    """Read an adapter from a PEFT folder, diffusers folder, or safetensors file; the content determines the format.

    `unet_only` leaves out the text encoder's part and summarizes it; PEFT files have no such part. Raise AdapterError if nothing
    can be read, or the format is unknown. Other problems are listed in the reading.
    """
    path = adapter_file(path)
    if os.path.isdir(path):  # noqa: PTH112  (it raises nothing)
        config = peft.read_config(name, path)
        file = read_tensor_file(name, path / PEFT_TENSORS)
        because = f"the folder contains {PEFT_CONFIG}"
        return AdapterReading(format=AdapterFormat.PEFT, because=because, path=path, reading=peft.read_peft(file.tensors, config))
    file = read_tensor_file(name, path)
    form, because = _format_of(name, file)
    match form:
        case AdapterFormat.PEFT:
            if path.name != PEFT_TENSORS:
                raise AdapterError(
                    f"adapter '{name}': '{path}' has PEFT's tensors, but is not named {PEFT_TENSORS}",
                    hint=f"put the file into a folder with {PEFT_CONFIG}, which has the scale, and give the folder",
                )
            return read_adapter(name, path.parent)
        case AdapterFormat.DIFFUSERS:
            unet = partial(peft.read_diffusers, metadata=file.metadata)
            text = partial(peft.read_text_encoder, metadata=file.metadata)
            reading, left_out = _read_parts(file, unet, text, unet_only=unet_only)
        case AdapterFormat.KOHYA:
            reading, left_out = _read_parts(file, kohya.read_kohya, kohya.read_text_encoder, unet_only=unet_only)
        case _:
            assert_never(form)
    return AdapterReading(format=form, because=because, path=path, reading=reading, left_out=left_out)


def _read_parts(file: TensorFile, read: Read, read_text: Read, *, unet_only: bool) -> tuple[LoraReading, OmittedPart | None]:
    """Read a file as (LoraReading, OmittedPart or None). The OmittedPart summarizes the text encoder that `unet_only` omits."""
    if not unet_only:
        return read(file.tensors), None
    unet, text = split_text_encoder(file.tensors)
    reading = read(unet)
    if not text:
        return reading, None
    others = read_text(text)
    problems = tuple(replace(problem, message=f"text encoder: {problem.message}") for problem in others.problems)
    left_out = OmittedPart.from_energies(len(text), _energies(others), unet_energy=sum(_energies(reading)))
    return replace(reading, problems=(*reading.problems, *problems)), left_out


def _energies(reading: LoraReading) -> list[float]:
    return [pair.energy for pair in reading.pairs.values()]


def _format_of(name: str, file: TensorFile) -> tuple[AdapterFormat, str]:
    keys = list(file.tensors)
    prefixes = {
        AdapterFormat.KOHYA: kohya.PREFIXES,
        AdapterFormat.DIFFUSERS: peft.PREFIXES,
        AdapterFormat.PEFT: ("base_model.model.",),
    }
    for form, starts in prefixes.items():
        count = sum(key.startswith(starts) for key in keys)
        if count and count == max(sum(key.startswith(other) for key in keys) for other in prefixes.values()):
            return form, f"{count} of its {len(keys)} tensors begin with {starts[0]}"
    if count := sum(key.startswith(peft.UNET_ROOTS) and bool(_IS_LORA.search(key)) for key in keys):
        return AdapterFormat.DIFFUSERS, f"{count} of its {len(keys)} tensors have the names of a U-Net's modules"
    raise AdapterError(
        f"adapter '{name}': '{file.path}' has tensors like '{keys[0]}', which no known format has",
        hint="use a PEFT folder, or a file whose tensors begin with unet. or down_blocks. (diffusers) or lora_unet_ (kohya)",
    )


def read_tensor_file(name: str, path: Path) -> TensorFile:
    """Read a whole safetensors file into memory."""
    check_tensor_file(name, path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no mapping)
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise AdapterError(f"adapter '{name}': '{path}' is not a valid safetensors file: {error}") from error
    return TensorFile(path=path, tensors=tensors, metadata=metadata)


def sites_of_unet(unet: nn.Module) -> BaseSites:
    """Return the layers (sites) of a diffusers U-Net where LoRA can be added: every Linear and ungrouped Conv2d."""
    takes_lora = {
        site: module
        for site, module in unet.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    }
    return BaseSites(
        slots={site: _site_shape(*input_shapes(site, module, 1).values(), rank=None) for site, module in takes_lora.items()},
        layers_per_block=unet.config.layers_per_block,
    )


def sites_of_graph(shapes: Mapping[str, Shape]) -> BaseSites:
    """Return a graph's LoRA layers as BaseSites, with their shapes and ranks. `shapes` maps LoRA input name to shape."""
    sites = sorted({name.removeprefix(LORA_PREFIX).rpartition(".")[0] for name in shapes})
    named = {site: [shapes[name] for name in input_names(site)] for site in sites}
    return BaseSites(slots={site: _site_shape(down, up, rank=down[0]) for site, (down, up) in named.items()})


def _site_shape(down: Shape, up: Shape, *, rank: int | None) -> SiteShape:
    return SiteShape(down=down[1:], up=(up[0], *up[2:]), rank=rank)


def fit_to_base(adapter: Adapter, base: BaseSites) -> Adapter:
    """Return an adapter with the base model's layer names and shapes. Raise AdapterError if a layer does not fit."""
    sites = match_sites(adapter.name, adapter.pairs, base)
    pairs = {site: _in_shape(adapter.name, site, adapter.pairs[name], base.slots[site]) for name, site in sites.items()}
    return replace(adapter, pairs=dict(sorted(pairs.items())))


def match_sites(adapter: str, names: Collection[str], base: BaseSites) -> dict[str, str]:
    """Return a dict from adapter layer to base layer. Raise AdapterError if a layer has no match, or two share a match."""
    flat = {flat_name(site): site for site in base.slots}  # no two sites of a diffusers U-Net share one
    sites = {name: _site(name, base, flat) for name in names}
    absent = [name for name, site in sites.items() if site is None]
    if absent:
        shown = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
        fitting = f"{len(names) - len(absent)} of its {len(names)} sites"
        hint = "use the foundation model that the adapter was trained for"
        if base.layers_per_block is None:
            hint += f", or {_NEW_BASE}"
        if base.layers_per_block is None and any(map(is_ldm, absent)):
            hint = _OTHER_NAMES
        raise AdapterError(f"adapter '{adapter}' fits at {fitting}; the base has no {shown}", hint=hint)
    by_site: dict[str | None, list[str]] = {}
    for name, site in sites.items():
        by_site.setdefault(site, []).append(name)
    if twice := {site: both for site, both in by_site.items() if len(both) > 1}:
        site, both = next(iter(twice.items()))
        more = f"; {len(twice) - 1} more sites have several names" if len(twice) > 1 else ""
        raise AdapterError(
            f"adapter '{adapter}' has site '{site}' under {len(both)} names: {' and '.join(map(repr, both))}{more}",
            hint="keep the pair that belongs to the adapter; loaders choose different ones",
        )
    return {name: site for name, site in sites.items() if site}


def _site(name: str, base: BaseSites, flat: Mapping[str, str]) -> str | None:
    if name in base.slots:
        return name
    if name in flat:
        return flat[name]
    if is_ldm(name) and base.layers_per_block:
        site = site_of_ldm(name, base.layers_per_block)
        return site if site in base.slots else None
    return None


def _in_shape(name: str, site: str, pair: LoraPair, slot: SiteShape) -> LoraPair:
    if slot.rank is not None and pair.rank > slot.rank:
        raise AdapterError(
            f"adapter '{name}' has rank {pair.rank} at site '{site}'; the base takes {slot.rank}",
            hint=f"train the adapter with that rank, or {_NEW_BASE}",
        )
    expected = slot.shapes(pair.rank)
    down, up = _reshaped(pair.down, expected[0]), _reshaped(pair.up, expected[1])
    if (tuple(down.shape), tuple(up.shape)) != expected:
        shapes = f"{tuple(pair.down.shape)} and {tuple(pair.up.shape)}"
        raise AdapterError(f"adapter '{name}' at site '{site}' has shapes {shapes}; expected {expected[0]} and {expected[1]}")
    return LoraPair(down=down, up=up)


def _reshaped(tensor: torch.Tensor, expected: Shape) -> torch.Tensor:
    """Return a LoRA tensor in the base's shape: (a, b) for a linear layer, (a, b, 1, 1) for a 1x1 convolution, else unchanged."""
    is_pointwise = tuple(tensor.shape[2:]) in ((), (1, 1)) and tuple(expected[2:]) in ((), (1, 1))
    return tensor.reshape(expected) if is_pointwise and tuple(tensor.shape[:2]) == tuple(expected[:2]) else tensor
