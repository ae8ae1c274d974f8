"""LoRA pairs: pairing the tensors of an adapter file layer by layer, and collecting every problem in the file."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch

from quadbench.errors import AdapterError
from quadbench.quad.adapters.adapter import LoraPair
from quadbench.quad.model.weight_faults import FLOATS, ValueFault, fault_of

MAX_SITES = 1024  # Stable Diffusion 1.x has 278 in its U-Net, SDXL 794
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
MAX_SITE_LENGTH = 128  # characters; Stable Diffusion's longest has 63
_PLAIN = "train the adapter as plain LoRA"
_CONVERT = "let quadbench adapter convert make a LoRA of it; the command prints what is lost"
_EXTRACT = "extract a LoRA from it (an SVD of the merged weights' difference), or train a plain LoRA"
_METHODS = {
    r"dora_scale|lora_magnitude_vector": ("DoRA", f"{_PLAIN} (use_dora=False); DoRA's magnitudes depend on the base weights"),
    r"\bhada_": ("LoHa", _CONVERT),
    r"\blokr_": ("LoKr", _CONVERT),
    r"\.diff(_b)?$": ("a full difference of weights", _CONVERT),
    r"\boft_|\bboft_": ("OFT", _EXTRACT),
    r"^base_model\.model\.(?!.*\blora_).+\.(weight|bias)$": (
        "a training of whole weights (modules_to_save or bias)",
        f"{_PLAIN} (modules_to_save=None, bias='none')",
    ),
    r"\blora_mid\b": ("a Tucker decomposition (lora_mid)", f"{_PLAIN}, without use_tucker or use_cp"),
}
TEXT_ENCODER = re.compile(r"^(lora_te\d?_|text_encoder(_2)?\.)")

ScaleOf = Callable[[str, int, float | None], float]  # site, rank, the alpha beside its tensors -> factor on up*down


class LoraPart(StrEnum):
    """The role of a LoRA tensor at its layer: matrix `down`, matrix `up`, or the scale `alpha`."""

    DOWN = "down"
    UP = "up"
    ALPHA = "alpha"


@dataclass(frozen=True, kw_only=True)
class TensorKey:
    """A tensor name, parsed into layer (`site`) and role (`part`). A role is a LoraPart, or a name such as LoHa's `hada_w1_a`."""

    site: str
    part: str


@dataclass(frozen=True, kw_only=True)
class AdapterProblem:
    """A reason why an adapter file cannot be used, with a hint for the user on how to solve the problem."""

    message: str
    hint: str | None = None


def refuse(adapter: str, problems: Sequence[AdapterProblem]) -> None:
    """Raise an AdapterError with the messages of all `problems` and the first problem's hint. Do nothing if there are none."""
    if problems:
        first, *rest = problems
        more = f"; and {'; '.join(problem.message for problem in rest)}" if rest else ""
        raise AdapterError(f"adapter '{adapter}' {first.message}{more}", hint=first.hint)


@dataclass(frozen=True, kw_only=True)
class LoraReading:
    """The LoRA pairs of a file by layer (site), and all problems found. `scales` has each layer's LoRA scale, already multiplied
    into `up`. If there are problems, only the pairs that could be formed are included.
    """

    pairs: dict[str, LoraPair]
    scales: dict[str, float]
    problems: tuple[AdapterProblem, ...]


KeyOf = Callable[[str], TensorKey | None]


def read_pairs(tensors: Mapping[str, torch.Tensor], key_of: KeyOf, scale_of: ScaleOf) -> LoraReading:
    """Pair tensors as a LoraReading. `key_of` maps name to TensorKey or None. `scale_of` maps (layer, r, alpha) to LoRA scale."""
    keys = {name: key_of(name) for name in tensors}
    faults = Faults()
    has_methods = _note_foreign([name for name, key in keys.items() if key is None], faults)
    pairs: dict[str, LoraPair] = {}
    scales: dict[str, float] = {}
    for site, parts in sorted(names_by_site({name: key for name, key in keys.items() if key}, faults).items()):
        if has_methods and parts.keys() == {LoraPart.ALPHA}:
            continue  # the site's other tensors belong to another method, which is already reported
        own = {part: tensors[name] for part, name in parts.items()}
        if LoraPart.ALPHA in own and own[LoraPart.ALPHA].dtype in _WHOLE:
            own[LoraPart.ALPHA] = own[LoraPart.ALPHA].double()  # an alpha may be saved as a whole number
        unsound = {parts[part]: fault for part, tensor in own.items() if (fault := fault_of(tensor))}
        for name, fault in unsound.items():
            faults.add_value(fault, quoted(name))
        if not _is_pair(site, own, faults):
            continue
        alpha = own.get(LoraPart.ALPHA)
        scales[site] = scale_of(site, own[LoraPart.DOWN].shape[0], None if alpha is None else float(alpha))
        pairs[site] = LoraPair(down=own[LoraPart.DOWN].float(), up=own[LoraPart.UP].float() * scales[site])
        if not unsound:
            faults.add_value(fault_of(pairs[site].up), f"up times its scale at site '{site}'")
    if not tensors:
        faults.add(FaultKind(before="has no tensors for the"), "U-Net")
    if pairs and all(pair.energy <= 0 for pair in pairs.values()):
        faults.add(_SILENT, f"all of its {len(pairs)} sites")
    return LoraReading(pairs=pairs, scales=scales, problems=faults.problems())


def split_text_encoder(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Split an adapter's tensors. Return two dicts from tensor name to tensor: the U-Net's first, the text encoder's second."""
    text = {name: tensor for name, tensor in tensors.items() if TEXT_ENCODER.match(name)}
    return {name: tensor for name, tensor in tensors.items() if name not in text}, text


def first_name(names: Sequence[str]) -> str:
    """Return the first name in quotes and the number of further names, as text for a message: `'a' and 2 more`."""
    return _counted([f"'{names[0][:MAX_SITE_LENGTH]}'", *names[1:]])


@dataclass(frozen=True, kw_only=True)
class FaultKind:
    """A kind of problem in an adapter file. Its message is `before`, then the names where it occurs, then `after`."""

    before: str
    after: str = ""
    hint: str | None = None


_HALF = {
    part: FaultKind(before=f"has only {part} at site", after="; expected down and up", hint="the file is incomplete")
    for part in LoraPart
}
_SHAPES = FaultKind(
    before="has shapes that form no pair at site", after="; expected (r, in) and (out, r), or (r, in, k, k) and (out, r, 1, 1)"
)
_RANKS = FaultKind(before="has unequal ranks at site", after="; expected equal ranks above 0")
_ALPHAS = FaultKind(before="has an alpha that is not one number at site")
_TWICE = FaultKind(before="has two tensors for", hint="keep the tensor that belongs to the adapter")
_SILENT = FaultKind(before="changes nothing: up*down is zero at", hint="save the adapter again after its training")
_MANY = FaultKind(before="has", after=f"; expected at most {MAX_SITES}", hint="give a LoRA of a Stable Diffusion U-Net")
_LONG = FaultKind(before=f"has site names of more than {MAX_SITE_LENGTH} characters, such as")


class Faults:
    """The problems of an adapter file by kind, each with the tensor or layer names where it occurs."""

    def __init__(self) -> None:
        self._places: dict[FaultKind, list[str]] = {}

    def add(self, fault: FaultKind, *places: str) -> None:
        """Record that an adapter file has a problem of kind `fault` at the tensors or layers named in `places`."""
        self._places.setdefault(fault, []).extend(places)

    def add_value(self, fault: ValueFault | None, place: str) -> None:
        """Record that the tensor named `place` has unusable values, as `fault` describes. Do nothing if `fault` is None."""
        if fault:
            self.add(FaultKind(before=f"has {fault.holds} in", hint=fault.hint), place)

    def problems(self) -> tuple[AdapterProblem, ...]:
        """Return one problem per kind, with the names where it occurs, in the order in which the kinds were first recorded."""
        return tuple(
            AdapterProblem(message=f"{fault.before} {_counted(places)}{fault.after}", hint=fault.hint)
            for fault, places in self._places.items()
        )


def _note_foreign(unread: list[str], faults: Faults) -> bool:
    """Record `unread` tensor names in `faults`, grouped by reason. Return True if any belongs to a method such as DoRA."""
    methods: set[str] = set()
    for pattern, (method, hint) in _METHODS.items():
        own = [name for name in unread if re.search(pattern, name) and name not in methods]
        methods.update(own)
        if own:
            faults.add(FaultKind(before=f"is {method}, which has no graph inputs:", hint=hint), *map(quoted, own))
    others = [name for name in unread if name not in methods]
    text = [name for name in others if TEXT_ENCODER.match(name)]
    if text:
        hint = "leave that part out with --unet-only (in a recipe unet_only: true); only the U-Net has LoRA inputs"
        faults.add(FaultKind(before="adapts the text encoder:", hint=hint), *map(quoted, text))
    unknown = [name for name in others if not TEXT_ENCODER.match(name)]
    if unknown:
        faults.add(FaultKind(before="has tensors that its format does not have:"), *map(quoted, unknown))
    return bool(methods)


def names_by_site(keys: Mapping[str, TensorKey], faults: Faults) -> dict[str, dict[str, str]]:
    """Return {layer: {role: tensor name}}, empty above MAX_SITES layers. Record duplicate and overlong names in `faults`."""
    sites: dict[str, dict[str, str]] = {}
    for name, key in keys.items():
        if len(key.site) > MAX_SITE_LENGTH:
            faults.add(_LONG, quoted(key.site))
            continue
        first = sites.setdefault(key.site, {}).setdefault(key.part, name)
        if first != name:
            faults.add(_TWICE, f"{key.part} at site '{key.site}': '{first}' and '{name}'")
    if len(sites) > MAX_SITES:
        faults.add(_MANY, f"{len(sites)} sites")
        return {}
    return sites


def _is_pair(site: str, parts: Mapping[str, torch.Tensor], faults: Faults) -> bool:
    """Return whether the tensors of one layer form a valid LoRA pair, and record the problem if not."""
    if LoraPart.DOWN not in parts or LoraPart.UP not in parts:
        present = next(part for part in (LoraPart.DOWN, LoraPart.UP, LoraPart.ALPHA) if part in parts)
        faults.add(_HALF[present], quoted(site))
        return False
    down, up, alpha = parts[LoraPart.DOWN], parts[LoraPart.UP], parts.get(LoraPart.ALPHA)
    if any(tensor.dtype not in FLOATS for tensor in parts.values()):
        return False
    if down.ndim not in (2, 4) or up.ndim != down.ndim or (up.ndim == 4 and up.shape[2:] != (1, 1)):
        faults.add(_SHAPES, f"'{site}' (down {tuple(down.shape)}, up {tuple(up.shape)})")
    elif up.shape[1] != down.shape[0] or down.shape[0] == 0:
        faults.add(_RANKS, f"'{site}' (down {down.shape[0]}, up {up.shape[1]})")
    elif alpha is not None and alpha.numel() != 1:
        faults.add(_ALPHAS, f"'{site}' (shape {tuple(alpha.shape)})")
    else:
        return True
    return False


def quoted(name: str) -> str:
    """Return a name in quotes for an error message, cut to at most MAX_SITE_LENGTH characters."""
    return f"'{name[:MAX_SITE_LENGTH]}'"


def _counted(places: Sequence[str]) -> str:
    return places[0] + (f" and {len(places) - 1} more" if len(places) > 1 else "")
