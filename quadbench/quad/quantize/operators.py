"""Operators: an ONNX operator of a U-Net -> its torch function, as ONNX specifies it in opset 21, float32, static shapes.

A function takes its operands `x`, and its attributes `a` by name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from quadbench.lint.rules import EXACT_RESIZE, RESIZE_DEFAULTS

Operands = Sequence[Any]  # tensors, None where an optional input is left out
Attributes = Mapping[str, Any]
Operator = Callable[[Operands, Attributes], torch.Tensor | Sequence[torch.Tensor]]

# By whole factors both repeat each value: the form that HTP takes, and ONNX's defaults.
RESIZE_FORMS = (", ".join(("nearest", *EXACT_RESIZE)), ", ".join(RESIZE_DEFAULTS.values()))


def resize_fault(x: Operands, a: Attributes) -> str | None:
    """Return the form or the factors that keep a Resize from being computed here, or None. `x` has its constants alone."""
    form = ", ".join(a[key].decode() if key in a else default for key, default in RESIZE_DEFAULTS.items())
    if form not in RESIZE_FORMS:
        return form
    factors = x[2].tolist() if len(x) > 2 and x[2] is not None else []
    is_whole = len(factors) == 4 and factors[:2] == [1, 1] and all(f >= 1 and f == int(f) for f in factors)
    return None if is_whole else f"{form}, by factors {factors or 'that are not constant'}"


def _conv(x: Operands, a: Attributes) -> torch.Tensor:
    top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
    data = x[0]
    if (top, left) != (bottom, right):
        data, top, left = F.pad(data, (left, right, top, bottom)), 0, 0
    bias = x[2] if len(x) > 2 else None
    return F.conv2d(data, x[1], bias, a.get("strides", 1), (top, left), a.get("dilations", 1), a.get("group", 1))


def _gemm(x: Operands, a: Attributes) -> torch.Tensor:
    left = x[0].T if a.get("transA") else x[0]
    right = x[1].T if a.get("transB") else x[1]
    product = a.get("alpha", 1.0) * (left @ right)
    return product + a.get("beta", 1.0) * x[2] if len(x) > 2 else product


def _reshape(x: Operands, _: Attributes) -> torch.Tensor:
    """Reshape, taking a leading 1 for however many samples there are: graphs are exported with batch 1."""
    batch, *shape = x[1].tolist()
    return x[0].reshape(x[0].shape[0] if batch in (0, 1) else batch, *shape)


def _instance_norm(x: Operands, a: Attributes) -> torch.Tensor:
    return F.instance_norm(x[0], weight=x[1], bias=x[2], eps=a.get("epsilon", 1e-5))


def _layer_norm(x: Operands, a: Attributes) -> torch.Tensor:
    normalised = x[0].shape[a.get("axis", -1) :]
    return F.layer_norm(x[0], normalised, x[1], x[2] if len(x) > 2 else None, a.get("epsilon", 1e-5))


def _resize(x: Operands, _: Attributes) -> torch.Tensor:
    """Enlarge by whole factors, in one of the RESIZE_FORMS: `resize_fault` has refused all else."""
    factors = [int(f) for f in x[2].tolist()]
    return x[0].repeat_interleave(factors[-2], -2).repeat_interleave(factors[-1], -1)


def _split(x: Operands, a: Attributes) -> Sequence[torch.Tensor]:
    axis = a.get("axis", 0)
    if len(x) > 1 and x[1] is not None:
        return torch.split(x[0], x[1].tolist(), axis)
    return torch.chunk(x[0], a["num_outputs"], axis)


def _slice(x: Operands, _: Attributes) -> torch.Tensor:
    starts, ends = x[1].tolist(), x[2].tolist()
    axes = x[3].tolist() if len(x) > 3 and x[3] is not None else range(len(starts))
    steps = x[4].tolist() if len(x) > 4 and x[4] is not None else [1] * len(starts)
    index = [slice(None)] * x[0].ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, min(end, x[0].shape[axis]), step)
    return x[0][tuple(index)]


def _unsqueeze(x: Operands, _: Attributes) -> torch.Tensor:
    tensor = x[0]
    for axis in sorted(x[1].tolist()):
        tensor = tensor.unsqueeze(axis)
    return tensor


OPERATORS: dict[str, Operator] = {
    "Add": lambda x, _: x[0] + x[1],
    "Sub": lambda x, _: x[0] - x[1],
    "Mul": lambda x, _: x[0] * x[1],
    "Div": lambda x, _: x[0] / x[1],
    "MatMul": lambda x, _: x[0] @ x[1],
    "Gemm": _gemm,
    "Conv": _conv,
    "Sigmoid": lambda x, _: x[0].sigmoid(),
    "Tanh": lambda x, _: x[0].tanh(),
    "Erf": lambda x, _: x[0].erf(),
    "Gelu": lambda x, a: F.gelu(x[0], approximate=a.get("approximate", b"none").decode()),
    "Softmax": lambda x, a: x[0].softmax(a.get("axis", -1)),
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "Reshape": _reshape,
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
    "Concat": lambda x, a: torch.cat(list(x), a["axis"]),
    "Split": _split,
    "Slice": _slice,
    "Resize": _resize,
    "Identity": lambda x, _: x[0],
}
