"""Loaded: a part of a foundation model as a library has read it -> nothing, or why its weights are not those of the file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from quadbench.errors import UserError
from quadbench.quad.model.values import faults_by_name

SAVE_AGAIN = "save the model with diffusers again"


def check_tensors(foundation: str, part: str, module: nn.Module) -> None:
    """Refuse a part of which tensors are absent, or whose numbers would make every picture NaN.

    Raises:
        UserError: names the first tensor and counts the others.
    """
    tensors = module.state_dict()
    absent = [name for name, tensor in tensors.items() if tensor.is_meta]
    if absent:
        place = f"'{absent[0]}'{_more(absent)} of its {part}"
        raise UserError(f"foundation model '{foundation}' lacks {place}; expected every tensor of it", hint=SAVE_AGAIN)
    for fault, names in faults_by_name(tensors).items():
        place = f"'{names[0]}'{_more(names)} of its {part}"
        raise UserError(f"foundation model '{foundation}' holds {fault.holds} in {place}", hint=fault.hint)


def check_loading(foundation: str, part: str, loading: Mapping[str, Any]) -> None:
    """Refuse files whose tensors are not those of the configuration: libraries draw what is missing at random.

    Raises:
        UserError: names the first tensor and counts the others.
    """
    for kind, what in (("missing_keys", "lacks"), ("mismatched_keys", "has another shape of")):
        names = sorted(entry if isinstance(entry, str) else entry[0] for entry in loading.get(kind) or ())
        if names:
            raise UserError(
                f"foundation model '{foundation}' {what} '{names[0]}'{_more(names)} of its {part}; "
                "expected the tensors that its configuration asks for",
                hint=SAVE_AGAIN,
            )


def check_types(foundation: str, part: str, module: nn.Module, files: Sequence[Path]) -> None:
    """Refuse weights that a file has as integers, truths or complex numbers, which libraries would convert.

    Raises:
        UserError: names the first tensor and counts the others.
    """
    wanted = {name for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    for path in files:
        with safe_open(path, framework="pt") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys() if name in wanted}  # noqa: SIM118
        odd = [name for name, kind in kinds.items() if not kind.startswith(("F", "BF"))]
        if odd:
            raise UserError(
                f"foundation model '{foundation}' has '{odd[0]}'{_more(odd)} of its {part} as {kinds[odd[0]]}; "
                "expected floating-point numbers",
                hint=SAVE_AGAIN,
            )


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
