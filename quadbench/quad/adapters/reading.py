"""Reading: the tensors of a file + how a format names them -> pairs by site, and every problem with them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch

from quadbench.quad.adapters.adapter import LoraPair


class LoraPart(StrEnum):
    """The part that a tensor plays at its site."""

    DOWN = "down"
    UP = "up"
    ALPHA = "alpha"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A tensor's key, taken apart."""

    site: str
    part: LoraPart


@dataclass(frozen=True, kw_only=True)
class AdapterProblem:
    """A reason why an adapter cannot be used, and what to do."""

    message: str
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A file's pairs by site. `scales` are already in the pairs' `up`.

    If there are problems, the pairs are those that could be formed all the same.
    """

    pairs: dict[str, LoraPair]
    scales: dict[str, float]
    problems: tuple[AdapterProblem, ...]


KeyOf = Callable[[str], Key | None]
ScaleOf = Callable[[str, int, float | None], float]  # site, rank, the alpha beside its tensors -> factor on up*down

_PLAIN = "train it as plain LoRA"
_EXTRACT = "its update has no low rank; extract a LoRA from it (an SVD of the merged weights' difference), or train a plain one"
_METHODS = {
    r"dora_scale|lora_magnitude_vector": ("DoRA", f"its magnitudes depend on the base weights; {_PLAIN} (use_dora=False)"),
    r"\bhada_": ("LoHa", _EXTRACT),
    r"\blokr_": ("LoKr", _EXTRACT),
    r"\boft_|\bboft_": ("OFT", _EXTRACT),
    r"\blora_mid\b": ("a Tucker decomposition (lora_mid)", f"{_PLAIN}, without use_tucker or use_cp"),
}
_TEXT_ENCODER = re.compile(r"^(lora_te\d?_|text_encoder(_2)?\.)")


def read_pairs(tensors: Mapping[str, torch.Tensor], key_of: KeyOf, scale_of: ScaleOf) -> Reading:
    """Pair the tensors up by site; `key_of` returns None for keys that the format does not have."""
    problems = list(_foreign(tensors, key_of))
    sites: dict[str, dict[LoraPart, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if key := key_of(name):
            sites.setdefault(key.site, {})[key.part] = tensor.float()
            if not torch.isfinite(tensor).all():
                problems.append(
                    AdapterProblem(message=f"holds NaN or Inf in '{name}'", hint="the training diverged; take an earlier step")
                )
    pairs: dict[str, LoraPair] = {}
    scales: dict[str, float] = {}
    for site, parts in sorted(sites.items()):
        if problem := _misfit(site, parts):
            problems.append(problem)
            continue
        down, up, alpha = parts[LoraPart.DOWN], parts[LoraPart.UP], parts.get(LoraPart.ALPHA)
        scales[site] = scale_of(site, down.shape[0], None if alpha is None else float(alpha))
        pairs[site] = LoraPair(down=down, up=up * scales[site])
    return Reading(pairs=pairs, scales=scales, problems=tuple(problems))


def _foreign(tensors: Mapping[str, torch.Tensor], key_of: KeyOf) -> list[AdapterProblem]:
    """List keys of other methods, of the text encoder, and unknown ones: one problem for each kind."""
    unread = [name for name in tensors if key_of(name) is None]
    problems = []
    for pattern, (method, hint) in _METHODS.items():
        foreign = [name for name in unread if re.search(pattern, name)]
        unread = [name for name in unread if name not in foreign]
        if foreign:
            problems.append(AdapterProblem(message=f"is {method}, which has no graph inputs: {_shown(foreign)}", hint=hint))
    text = [name for name in unread if _TEXT_ENCODER.match(name)]
    if text:
        hint = "only the U-Net takes LoRA inputs; train it without the text encoder, or remove those tensors and see what is lost"
        problems.append(AdapterProblem(message=f"adapts the text encoder: {_shown(text)}", hint=hint))
    unknown = [name for name in unread if name not in text]
    if unknown:
        problems.append(AdapterProblem(message=f"has tensors that are no part of its format: {_shown(unknown)}"))
    return problems


def _misfit(site: str, parts: Mapping[LoraPart, torch.Tensor]) -> AdapterProblem | None:
    for part, other in ((LoraPart.DOWN, LoraPart.UP), (LoraPart.UP, LoraPart.DOWN)):
        if part not in parts:
            present = other if other in parts else LoraPart.ALPHA
            return AdapterProblem(
                message=f"has only {present} at site '{site}'; expected down and up", hint="the file is incomplete"
            )
    down, up, alpha = parts[LoraPart.DOWN], parts[LoraPart.UP], parts.get(LoraPart.ALPHA)
    if down.ndim not in (2, 4) or up.ndim != down.ndim or (up.ndim == 4 and up.shape[2:] != (1, 1)):
        shapes = f"down {tuple(down.shape)} and up {tuple(up.shape)}"
        return AdapterProblem(
            message=f"has {shapes} at site '{site}'; expected (r, in) and (out, r), or (r, in, k, k) and (out, r, 1, 1)"
        )
    if up.shape[1] != down.shape[0] or down.shape[0] == 0:
        return AdapterProblem(
            message=f"at site '{site}' down has rank {down.shape[0]}, up has rank {up.shape[1]}; expected equal ones above 0"
        )
    if alpha is not None and alpha.numel() != 1:
        return AdapterProblem(message=f"has an alpha of shape {tuple(alpha.shape)} at site '{site}'; expected one number")
    return None


def _shown(names: list[str]) -> str:
    return f"'{names[0]}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
