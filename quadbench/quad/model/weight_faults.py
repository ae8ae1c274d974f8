"""Weight faults: checks of weight tensors for NaN, infinities and implausible magnitudes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
GREATEST = 65504.0  # the greatest float16 number, in which NPUs compute; model weights are far smaller
LEAST = 1e-30  # below this, the scale of 16-bit integers is close to float32's subnormal numbers, with few digits


@dataclass(frozen=True, kw_only=True)
class ValueFault:
    """A reason why a weight tensor is unusable. `holds` names its bad values, such as "NaN or Inf". `hint` says what to do."""

    holds: str
    hint: str


NOT_FINITE = ValueFault(holds="NaN or Inf", hint="use an earlier checkpoint, as the training diverged")
TOO_LARGE = ValueFault(holds=f"magnitudes above {GREATEST:g}", hint="use an earlier checkpoint, or another copy of the file")
TOO_SMALL = ValueFault(holds=f"only zeros and magnitudes below {LEAST:g}", hint="save zeros instead; such weights have no effect")


def fault_of(tensor: torch.Tensor) -> ValueFault | None:
    """Return a ValueFault if a weight tensor is not float, holds NaN or Inf, or has implausible magnitudes; otherwise None."""
    if tensor.dtype not in FLOATS:
        kind = str(tensor.dtype).removeprefix("torch.")
        return ValueFault(holds=f"values of type {kind}", hint="save the weights as floating-point numbers, such as float16")
    greatest = _greatest(tensor)
    if 0 < greatest < LEAST:
        return TOO_SMALL
    return _above(greatest)


def faults_by_name(tensors: Mapping[str, torch.Tensor]) -> dict[ValueFault, list[str]]:
    """Find float tensors that hold NaN, Inf or magnitudes above 65504. Return a dict from ValueFault to list of tensor names."""
    faults: dict[ValueFault, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.dtype in FLOATS and (fault := _above(_greatest(tensor))):
            faults.setdefault(fault, []).append(name)
    return faults


def _greatest(tensor: torch.Tensor) -> float:
    """Return a tensor's greatest magnitude after conversion to float32; NaN if any value is NaN."""
    if not tensor.numel():
        return 0.0
    low, high = torch.aminmax(tensor.float())
    return max(-float(low), float(high))  # both are NaN if any number is


def _above(greatest: float) -> ValueFault | None:
    if not greatest < float("inf"):  # NaN is not below anything
        return NOT_FINITE
    return TOO_LARGE if greatest > GREATEST else None
