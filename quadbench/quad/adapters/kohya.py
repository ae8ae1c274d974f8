"""Kohya and LyCORIS: reading LoRA files whose layer names have underscores for dots, and LoHa, LoKr and full-difference files."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import SimpleNamespace
from typing import assert_never

import torch
from diffusers.utils import convert_unet_state_dict_to_peft

from quadbench.quad.adapters.lora_pairs import (
    AdapterProblem,
    FaultKind,
    Faults,
    LoraPart,
    LoraReading,
    TensorKey,
    names_by_site,
    quoted,
    read_pairs,
)
from quadbench.quad.model.weight_faults import fault_of

PREFIX = "lora_unet_"
PREFIXES = (PREFIX, "lora_te_", "lora_te1_", "lora_te2_")
_KEY = re.compile(rf"^(?P<prefix>{'|'.join(PREFIXES)})(?P<flat>[^.]+)\.(?P<part>lora_down\.weight|lora_up\.weight|alpha)$")
_PARTS = {"lora_down.weight": LoraPart.DOWN, "lora_up.weight": LoraPart.UP, "alpha": LoraPart.ALPHA}
_UPSAMPLER = re.compile(r"(?P<block>output_blocks_(?P<index>\d+))_[12]_conv")
_LDM = re.compile(r"^(input_blocks|middle_block|output_blocks|time_embed_|label_emb_|out_2)")
_ADDED = {"add_embedding_linear_1": "label_emb_0_0", "add_embedding_linear_2": "label_emb_0_2"}
MAX_WEIGHTS = 2**26  # the most at one site; Stable Diffusion's largest has 29.5 million
Parts = Mapping[str, torch.Tensor]
ScaleOf = Callable[[str, Parts, int | None], float]  # site, its tensors, their rank -> factor on the update
FACTORS = r"hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)"
_DIFFERENCE_KEY = re.compile(rf"^(?P<prefix>{'|'.join(PREFIXES)})(?P<flat>[^.]+)\.(?P<part>{FACTORS}|diff|diff_b|alpha)$")
_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_PRODUCTS = (
    ("hada_w1_a", "hada_w1_b", "hada_t1"),
    ("hada_w2_a", "hada_w2_b", "hada_t2"),
    ("lokr_w1_a", "lokr_w1_b", ""),
    ("lokr_w2_a", "lokr_w2_b", "lokr_t2"),
)


def read_kohya(tensors: Mapping[str, torch.Tensor]) -> LoraReading:
    """Read a kohya file's U-Net LoRA pairs into a LoraReading. Multiply `up` by alpha / r, or by 1 where a layer has no alpha."""
    return read_pairs(tensors, lambda name: _key(name, of_unet=True), _scale)


def read_text_encoder(tensors: Mapping[str, torch.Tensor]) -> LoraReading:
    """Read a kohya file's text encoder LoRA pairs into a LoraReading. Layer names keep their prefix, such as `lora_te_`."""
    return read_pairs(tensors, lambda name: _key(name, of_unet=False), _scale)


def _key(name: str, *, of_unet: bool) -> TensorKey | None:
    match = _KEY.match(name)
    if match is None or (match["prefix"] == PREFIX) is not of_unet:
        return None
    return TensorKey(site=match["flat"] if of_unet else match["prefix"] + match["flat"], part=_PARTS[match["part"]])


def _scale(_site: str, rank: int, alpha: float | None) -> float:
    return 1.0 if alpha is None else alpha / rank


def flat_name(site: str) -> str:
    """Return a layer's name with underscores for dots, as in the tensor keys of kohya's files."""
    return site.replace(".", "_")


def is_ldm(flat: str) -> bool:
    """Return whether a layer's name is in the style of the original Stable Diffusion code, which numbers blocks differently."""
    return _LDM.match(flat) is not None


def as_diffusers_reads(flat: str) -> str:
    """Rename the upsampler `output_blocks_<i>_1_conv` to `output_blocks_<i>_2_conv`, the form that diffusers' converter requires.
    Original Stable Diffusion uses the number 1 in blocks without attention. The layers of SDXL's added conditions get their
    original names. Return every other layer name unchanged.
    """
    match = _UPSAMPLER.fullmatch(flat)
    return f"{match['block']}_2_conv" if match else _ADDED.get(flat, flat)


def site_of_ldm(flat: str, layers_per_block: int) -> str | None:
    """Translate a layer's original Stable Diffusion name to its diffusers name. Return None if the name is unknown."""
    from diffusers.loaders import StableDiffusionLoraLoaderMixin  # here, because it loads all of transformers' image code

    upsampler = _UPSAMPLER.fullmatch(flat)
    if upsampler and (int(upsampler["index"]) + 1) % (layers_per_block + 1):
        return None  # only the last block of a stage has an upsampler
    pair = {f"{PREFIX}{as_diffusers_reads(flat)}.lora_{side}.weight": torch.zeros(1) for side in ("down", "up")}
    config = SimpleNamespace(layers_per_block=layers_per_block)
    try:
        converted, _ = StableDiffusionLoraLoaderMixin.lora_state_dict(pair, unet_config=config)  # confuses similar names
    except (ValueError, KeyError, IndexError):  # raised for unknown names
        return None
    first = next(iter(convert_unet_state_dict_to_peft(converted)))
    return first.removeprefix("unet.").removesuffix(".lora_A.weight")


class Method(StrEnum):
    """A method other than LoRA by which an adapter file stores a weight update: LoHa, LoKr, or the full difference."""

    LOHA = "LoHa"
    LOKR = "LoKr"
    FULL = "full"


@dataclass(frozen=True, kw_only=True)
class WeightUpdate:
    """A layer's weight update, stored as LoHa, LoKr or full-difference tensors. `biases` is the layer's bias update, or None."""

    method: Method
    parts: Parts
    rank: int | None  # None for updates without factors
    scale: float
    biases: torch.Tensor | None = None

    def weights(self) -> torch.Tensor:
        """Return the weight update in float64, in the shape of the file's tensors: (out, in * k * k) or (out, in, k, k)."""
        parts = {part: tensor.double() for part, tensor in self.parts.items()}
        match self.method:
            case Method.LOHA:
                return _product(parts, *_PRODUCTS[0]) * _product(parts, *_PRODUCTS[1]) * self.scale
            case Method.LOKR:
                first = parts["lokr_w1"] if "lokr_w1" in parts else _product(parts, *_PRODUCTS[2])
                second = parts["lokr_w2"] if "lokr_w2" in parts else _product(parts, *_PRODUCTS[3])
                return torch.kron(first.reshape(*first.shape, *(1,) * (second.ndim - 2)), second.contiguous()) * self.scale
            case Method.FULL:
                return parts["diff"] * self.scale
            case _:
                assert_never(self.method)


@dataclass(frozen=True, kw_only=True)
class WeightUpdates:
    """An adapter file's LoHa, LoKr and full-difference updates by layer name. `rest` has the file's other tensors by name."""

    by_site: dict[str, WeightUpdate]
    rest: dict[str, torch.Tensor]
    problems: tuple[AdapterProblem, ...]


def kohya_key(name: str) -> TensorKey | None:
    """Return a TensorKey for a LoHa, LoKr or full-difference tensor, else None. Text encoder sites start with `lora_te`."""
    match = _DIFFERENCE_KEY.match(name)
    if match is None:
        return None
    return TensorKey(site=match["flat"] if match["prefix"] == PREFIX else match["prefix"] + match["flat"], part=match["part"])


def alpha_scale(_site: str, parts: Parts, rank: int | None) -> float:
    """Return one layer's LoRA scale: alpha / r, or 1 if there is no rank, or no alpha among the layer's tensors."""
    return float(parts["alpha"]) / rank if rank and "alpha" in parts else 1.0


def read_weight_updates(
    tensors: Parts, key_of: Callable[[str], TensorKey | None] = kohya_key, scale_of: ScaleOf = alpha_scale
) -> WeightUpdates:
    """Read LoHa, LoKr and full-difference updates into a WeightUpdates. `key_of` maps a tensor name to its TensorKey or None."""
    keys = {name: key for name in tensors if (key := key_of(name))}
    sites = {key.site for key in keys.values() if key.part != "alpha"}
    own = {name: key for name, key in keys.items() if key.site in sites}
    faults, differences = Faults(), {}
    for site, names in sorted(names_by_site(own, faults).items()):
        parts = {part: tensors[name] for part, name in names.items()}
        unsound = {names[part]: fault for part, tensor in parts.items() if (fault := fault_of(tensor))}
        for name, fault in unsound.items():
            faults.add_value(fault, quoted(name))
        if unsound:
            continue
        try:
            differences[site] = _weight_update(site, parts, scale_of)
        except ValueError as error:
            faults.add(FaultKind(before=f"{error} at site"), quoted(site))
    rest = {name: tensor for name, tensor in tensors.items() if name not in own}
    return WeightUpdates(by_site=differences, rest=rest, problems=faults.problems())


def _weight_update(site: str, parts: dict[str, torch.Tensor], scale_of: ScaleOf) -> WeightUpdate:
    biases = parts.pop("diff_b").double() if "diff_b" in parts else None
    methods = {
        method
        for method, start in ((Method.LOHA, "hada_"), (Method.LOKR, "lokr_"), (Method.FULL, "diff"))
        if any(part.startswith(start) for part in parts)
    }
    if len(methods) != 1:
        raise ValueError("has tensors of several methods" if methods else "has only a bias update")
    (method,) = methods
    if "alpha" in parts and parts["alpha"].numel() != 1:
        raise ValueError("has an alpha that is not one number")
    _check_parts(parts, method)
    if _size(parts, method) > MAX_WEIGHTS:
        raise ValueError(f"has more than {MAX_WEIGHTS} weights")
    rank = next((parts[name].shape[0] for _, name, _ in _PRODUCTS if name in parts), None)
    scale = 1.0 if method is Method.FULL else scale_of(site, parts, rank)
    return WeightUpdate(method=method, parts=parts, rank=rank, scale=scale, biases=biases)


_FORMS: dict[Method, tuple[tuple[str, ...], ...]] = {
    Method.LOHA: (_LOHA, (*_LOHA, "hada_t1", "hada_t2")),
    Method.FULL: (("diff",),),
    Method.LOKR: tuple(
        (*first, *second)
        for first in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for second in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"), ("lokr_w2_a", "lokr_w2_b", "lokr_t2"))
    ),
}


def _check_parts(parts: Parts, method: Method) -> None:
    if not any(set(form) == parts.keys() - {"alpha"} for form in _FORMS[method]):
        raise ValueError(f"has tensors that do not form a {method} update ({', '.join(sorted(parts.keys() - {'alpha'}))})")
    for first, second, third in _PRODUCTS:
        if first not in parts:
            continue
        # (out, r) and (r, in[, k, k]), or (r, out), (r, in) and a core (r, r, k, k)
        a, b, core = parts[first], parts[second], parts.get(third)
        if a.ndim != 2 or b.ndim not in (2, 4) or 0 in (*a.shape, *b.shape):
            raise ValueError("has factors that are not matrices")
        rank = a.shape[0] if core is not None else a.shape[1]
        if b.shape[0] != rank or (core is not None and (core.ndim != 4 or b.ndim != 2 or tuple(core.shape[:2]) != (rank, rank))):
            raise ValueError("has factors of incompatible shapes")
    if any(parts[name].ndim not in (2, 4) for name in ("diff", "lokr_w2") if name in parts):
        raise ValueError("has a tensor that does not have 2 or 4 dimensions")
    if "lokr_w1" in parts and parts["lokr_w1"].ndim != 2:
        raise ValueError("has a lokr_w1 that is not a matrix")
    if method is Method.LOHA and _product_shape(parts, *_PRODUCTS[0]) != _product_shape(parts, *_PRODUCTS[1]):
        raise ValueError("has factors of different shapes")
    if len({parts[second].shape[0] for _, second, _ in _PRODUCTS if second in parts}) > 1:
        raise ValueError("has several ranks")


def _product_shape(parts: Parts, first: str, second: str, core: str) -> tuple[int, ...]:
    a, b = parts[first], parts[second]
    return (a.shape[1], b.shape[1], *parts[core].shape[2:]) if core in parts else (a.shape[0], *b.shape[1:])


def _size(parts: Parts, method: Method) -> int:
    """Return the number of weights that a layer's update changes, from the shapes of the update's tensors alone."""
    shapes = [_product_shape(parts, *names) for names in _PRODUCTS if names[0] in parts]
    shapes += [tuple(parts[name].shape) for name in ("diff", "lokr_w1", "lokr_w2") if name in parts]
    sizes = [torch.Size(shape).numel() for shape in shapes]
    return max(sizes) if method is not Method.LOKR else sizes[0] * sizes[1]


def _product(parts: Parts, first: str, second: str, core: str) -> torch.Tensor:
    a, b = parts[first], parts[second]
    if core in parts:
        return torch.einsum("i j k l, i p, j q -> p q k l", parts[core], a, b)  # (r, r, k, k), (r, out), (r, in)
    return (a @ b.flatten(1)).reshape(-1, *b.shape[1:])  # (out, r) @ (r, in * k * k)
