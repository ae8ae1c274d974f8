"""Convert: approximate LoHa, LoKr, full weight differences or a larger LoRA by a LoRA of a given rank, and measure the error.

Each layer's update is truncated to its greatest singular values, the best approximation of that rank (Eckart and Young).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from quadbench.errors import AdapterError, UserError
from quadbench.quad.adapters.adapter import Adapter, LoraPair, OmittedPart
from quadbench.quad.adapters.kohya import PREFIX, WeightUpdates, flat_name, read_kohya, read_text_encoder, read_weight_updates
from quadbench.quad.adapters.loading import BaseSites, SiteShape, fit_to_base, match_sites, read_tensor_file
from quadbench.quad.adapters.lora_pairs import LoraReading, first_name, refuse, split_text_encoder
from quadbench.quad.adapters.peft import read_config, read_peft, read_peft_differences
from quadbench.quad.model_files import PEFT_TENSORS, adapter_files
from quadbench.results.digests import sha256_of

METADATA = "quadbench.conversion"
MIN_SINGULAR = 1e-7  # relative to the greatest; smaller singular values are float32 rounding errors


@dataclass(frozen=True, kw_only=True)
class ConvertedSite:
    """One layer's weight update converted to LoRA. `error` is relative: Frobenius norm of (update - LoRA) / norm of update."""

    site: str
    method: str  # LoHa, LoKr, full or LoRA
    rank: int
    error: float
    energy: float  # sum of squares of the update


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A LoRA converted from an adapter, without bias updates. `sites` has one entry per layer, largest error first."""

    adapter: Adapter
    source: str
    source_sha256: str
    rank: int
    sites: tuple[ConvertedSite, ...]
    biases: int  # number of sites whose bias update was left out
    greatest_bias: float  # magnitude

    @property
    def error(self) -> float:
        """Return the conversion's relative error over all layers: Frobenius norm of the lost part / norm of the updates."""
        lost = sum(site.energy * site.error**2 for site in self.sites)
        return math.sqrt(lost / sum(site.energy for site in self.sites))


def convert(source: Path, base: BaseSites, *, rank: int, unet_only: bool = False) -> Conversion:
    """Convert an adapter to a LoRA of rank at most `rank`. Return a `Conversion`. LoRA pairs of rank <= `rank` stay unchanged.

    Raises:
        AdapterError: the file cannot be read, uses another method, does not fit the base, or changes nothing.
    """
    path, read, plain, text = _content(source, unet_only=unet_only)
    refuse(source.name, (*read.problems, *(plain.problems if plain else ())))
    if both := read.by_site.keys() & (plain.pairs.keys() if plain else set()):
        raise AdapterError(f"adapter '{source.name}' has tensors of several methods at site {first_name(sorted(both))}")
    names = match_sites(source.name, [*read.by_site, *(plain.pairs if plain else ())], base)
    pairs = fit_to_base(Adapter(name=source.name, pairs=plain.pairs), base).pairs if plain else {}
    done: dict[str, tuple[LoraPair | None, ConvertedSite]] = {}
    for site, pair in pairs.items():
        if pair.rank <= rank:
            done[site] = pair, ConvertedSite(site=site, method="LoRA", rank=pair.rank, error=0.0, energy=pair.energy)
            continue
        weights = pair.up.flatten(1).double() @ pair.down.flatten(1).double()
        slot = SiteShape(down=tuple(pair.down.shape[1:]), up=(pair.up.shape[0], *pair.up.shape[2:]))
        done[site] = _truncated(site, "LoRA", weights, slot, rank)
    for name, difference in read.by_site.items():
        site = names[name]
        weights = _in_shape(source.name, site, difference.weights(), base.slots[site])
        done[site] = _truncated(site, difference.method, weights, base.slots[site], rank)
    kept = {site: pair for site, (pair, _) in done.items() if pair is not None}
    if not kept:
        raise AdapterError(f"adapter '{source.name}' changes nothing: all {len(done)} weight updates are zero")
    biases = [one.biases for one in read.by_site.values() if one.biases is not None and one.biases.any()]
    return Conversion(
        adapter=Adapter(
            name=source.name,
            pairs=dict(sorted(kept.items())),
            left_out=_left_out(source.name, text, sum(row.energy for _, row in done.values())) if text else None,
        ),
        source=source.name,
        source_sha256=sha256_of(path),
        rank=rank,
        sites=tuple(sorted((row for pair, row in done.values() if pair is not None), key=lambda row: -row.error)),
        biases=len(biases),
        greatest_bias=max((float(bias.abs().max()) for bias in biases), default=0.0),
    )


def write_conversion(conversion: Conversion, path: Path) -> None:
    """Write a converted LoRA as a safetensors file in kohya's format. JSON metadata has the source adapter and the relative
    conversion error. Raise UserError if the path exists already, does not end in .safetensors or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise UserError(f"'{path}' does not end in .safetensors", hint="give a file name with that ending")
    tensors: dict[str, torch.Tensor] = {}
    for site, pair in conversion.adapter.pairs.items():
        name = PREFIX + flat_name(site)
        tensors |= {f"{name}.lora_down.weight": pair.down, f"{name}.lora_up.weight": pair.up}
        tensors[f"{name}.alpha"] = torch.tensor(float(pair.rank))
    content = {key: tensor.contiguous() for key, tensor in tensors.items()}
    temporary = path.with_name(f".{path.name}.part")
    try:
        if path.exists():
            raise UserError(f"'{path}' already exists", hint="give another --output, or remove the file")
        temporary.write_bytes(save(content, {METADATA: json.dumps(origin(conversion))}))
        temporary.rename(path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def origin(conversion: Conversion) -> dict[str, object]:
    """Return a Conversion's JSON metadata: a dict of source name, SHA-256, methods such as LoHa, rank, error, omitted parts."""
    left_out = conversion.adapter.left_out
    return {
        "source": conversion.source,
        "source_sha256": conversion.source_sha256,
        "methods": sorted({site.method for site in conversion.sites}),
        "rank": conversion.rank,
        "relative_error": conversion.error,
        "left_out": asdict(left_out) if left_out else None,
        "biases_left_out": conversion.biases,
    }


def _content(source: Path, *, unet_only: bool) -> tuple[Path, WeightUpdates, LoraReading | None, Mapping[str, torch.Tensor]]:
    """Read an adapter from a PEFT folder or kohya file. Return (tensor file path, weight updates, LoRA pairs or None without any,
    dict from text encoder tensor name to tensor). The dict is empty unless `unet_only` is set and the file is a kohya file.
    """
    if tensors_of_peft := adapter_files(source).get(PEFT_TENSORS):
        config = read_config(source.name, tensors_of_peft.parent)
        file = read_tensor_file(source.name, tensors_of_peft)
        read = read_peft_differences(file.tensors, config)
        return file.path, read, read_peft(read.rest, config) if read.rest else None, {}
    file = read_tensor_file(source.name, source)
    tensors, text = split_text_encoder(file.tensors) if unet_only else (file.tensors, {})
    read = read_weight_updates(tensors)
    return file.path, read, read_kohya(read.rest) if read.rest else None, text


def _truncated(
    site: str, method: str, weights: torch.Tensor, slot: SiteShape, rank: int
) -> tuple[LoraPair | None, ConvertedSite]:
    """Reduce an update (out, in*k*k) to rank <= `rank` by SVD. Return (pair, ConvertedSite); a zero update has pair None."""
    energy = float(weights.square().sum())
    left, singular, right = torch.linalg.svd(weights, full_matrices=False)
    kept = min(rank, int((singular > singular[0] * MIN_SINGULAR).sum()))
    if kept == 0:
        return None, ConvertedSite(site=site, method=method, rank=0, error=0.0, energy=0.0)
    root = singular[:kept].sqrt()
    up, down = (left[:, :kept] * root).float(), (root[:, None] * right[:kept]).float()
    missing = float((weights - up.double() @ down.double()).square().sum())
    shapes = slot.shapes(kept)
    pair = LoraPair(down=down.reshape(shapes[0]), up=up.reshape(shapes[1]))
    return pair, ConvertedSite(site=site, method=method, rank=kept, error=math.sqrt(missing / energy), energy=energy)


def _in_shape(adapter: str, site: str, weights: torch.Tensor, slot: SiteShape) -> torch.Tensor:
    flat, expected = weights.flatten(1), (slot.up[0], math.prod(slot.down))
    if tuple(flat.shape) != expected or (weights.ndim == 4 and weights.shape[2:] != (*slot.down[1:], 1, 1)[:2]):
        shape = (slot.up[0], *slot.down)
        raise AdapterError(f"adapter '{adapter}' changes weights {tuple(weights.shape)} at site '{site}'; the base has {shape}")
    return flat


def _left_out(adapter: str, text: Mapping[str, torch.Tensor], unet_energy: float) -> OmittedPart:
    read = read_weight_updates(text)
    plain = read_text_encoder(read.rest) if read.rest else None
    refuse(f"{adapter}, text encoder", (*read.problems, *(plain.problems if plain else ())))
    energies = [float(one.weights().square().sum()) for one in read.by_site.values()]
    energies += [pair.energy for pair in plain.pairs.values()] if plain else []
    return OmittedPart.from_energies(len(text), energies, unet_energy=unet_energy)
