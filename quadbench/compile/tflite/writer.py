"""Writer: a rounded graph's tensors -> those of a .tflite file, which the forms of operators read and write.

ONNX has images as (1, C, h, w), LiteRT as (1, h, w, C). A tensor of four dimensions is therefore known in one or both of two
forms, `plain` as in ONNX and `channels_last`; an operator asks for the one that it takes, and what turns values from the one into
the other is written once, where it is first asked for.
"""

from pathlib import Path
from typing import Any

import numpy as np

from quadbench.compile.tflite.dialect import GREATEST
from quadbench.compile.tflite.graph import Constant, Operation, RoundedGraph, Shape
from quadbench.compile.tflite.model import Model
from quadbench.errors import BuildError

IMAGE_RANK = 4
TO_LAST, TO_PLAIN = (0, 2, 3, 1), (0, 3, 1, 2)


class Writer:
    """A .tflite file under way; the forms in `forms` write to it."""

    def __init__(self, graph: RoundedGraph) -> None:
        self.graph, self.model = graph, Model()
        self._plain: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._read = {name for op in graph.operations for name in op.inputs} | set(graph.outputs.values())
        self._inputs = {name: self._input(name, dtype) for name, dtype in graph.inputs.items()}

    def write(self, path: Path) -> None:
        """Write the file, once every operation was written."""
        outputs = {name: self._output(name, source) for name, source in self.graph.outputs.items()}
        self.model.write(path, self._inputs, outputs)

    def plain(self, name: str) -> int:
        """Return a tensor as ONNX has it."""
        if name not in self._plain:
            is_turned = name in self._last
            self._plain[name] = (
                self.transposed(self._last[name], name, TO_PLAIN) if is_turned else self._constant(name, last=False)
            )
        return self._plain[name]

    def channels_last(self, name: str) -> int:
        """Return a tensor of four dimensions with its channels last.

        Raises:
            BuildError: it has another number of dimensions.
        """
        if name in self._plain and len(shape := self.graph.shapes[name]) != IMAGE_RANK:
            raise BuildError(f"'{name}' has the shape {shape} beside images, which has no form in LiteRT here")
        if name not in self._last:
            is_turned = name in self._plain
            self._last[name] = self.transposed(self._plain[name], name, TO_LAST) if is_turned else self._constant(name, last=True)
        return self._last[name]

    def lies_last(self, *names: str) -> bool:
        """Say whether one of the tensors is there with its channels last, so that an operator on them had better be, too."""
        return any(name in self._last for name in names)

    def result(self, name: str, *, last: bool = False) -> int:
        """Add the tensor that an operation gives, of INT16."""
        shape = self.graph.shapes[name]
        number = self.model.tensor(name, [shape[i] for i in TO_LAST] if last else shape, "int16", self.graph.scales[name])
        self.known(name, number, last=last)
        return number

    def is_read(self, name: str) -> bool:
        """Say whether an operation reads a tensor, or it leaves the graph."""
        return name in self._read

    def known(self, name: str, number: int, *, last: bool = False) -> None:
        """Let a tensor be known under a name."""
        (self._last if last else self._plain)[name] = number

    def transposed(self, tensor: int, name: str, order: Shape) -> int:
        """Write a transposition of a rounded tensor, which is known as `name`."""
        shape = self.model.shape(tensor)
        turned = self.between(f"{name}.{'x'.join(map(str, order))}", tuple(shape[i] for i in order), self.graph.scales[name])
        self.model.operator("TRANSPOSE", [tensor, self.model.numbers(*order)], [turned])
        return turned

    def forms_of(self, name: str) -> tuple[int | None, int | None]:
        """Return the tensor's two forms, plain and channels last, as far as they are there."""
        return self._plain.get(name), self._last.get(name)

    def between(self, name: str, shape: Shape, scale: float | None = None) -> int:
        """Add a tensor inside a form: of INT16 with a scale, of float without."""
        return self.model.tensor(name, shape, "float32" if scale is None else "int16", scale)

    def weights(self, op: Operation, index: int) -> Constant:
        """Return the constant that an operation reads; its values may be what it likes."""
        if index >= len(op.inputs) or op.inputs[index] not in self.graph.constants:
            raise BuildError(f"{op} has no constant as input {index}", hint="weights that are no inputs are constants")
        return self.graph.constants[op.inputs[index]]

    def _input(self, name: str, dtype: str) -> int:
        """Add an input, which keeps its type; one of float is rounded at once."""
        shape, scale = self.graph.shapes[name], self.graph.scales.get(name)
        number = self.model.tensor(name, shape, dtype, None if dtype == "float32" else scale)
        inside = number
        if scale is not None and dtype != "int16":
            inside = self.between(f"{name}.rounded", shape, scale)
            self.model.operator("QUANTIZE", [number], [inside])
        self.known(name, inside)
        return number

    def _output(self, name: str, source: str) -> int:
        number = self.model.tensor(name, self.graph.shapes[source], "float32")
        self.model.operator("DEQUANTIZE", [self.plain(source)], [number])
        return number

    def _constant(self, name: str, *, last: bool) -> int:
        """Add a constant operand, of INT16 with one scale."""
        constant = self.graph.constants.get(name)
        if constant is None:
            raise BuildError(f"'{name}' is read before it is written")
        if constant.scales is None and constant.values.dtype.kind != "f":
            raise BuildError(
                f"'{name}' holds {constant.values.dtype} that stand for themselves, which have no form in LiteRT here"
            )
        values, scale = _int16(constant)
        if last and values.size > 1:
            values = values.reshape((1,) * (IMAGE_RANK - values.ndim) + values.shape).transpose(TO_LAST)
        return self.model.constant(f"{name}.last" if last else name, values, scale)


def _int16(constant: Constant) -> tuple[np.ndarray, Any]:
    """Return a constant in INT16; one that the dialect did not round is rounded to its own range."""
    if constant.values.dtype == np.int16:
        return constant.values, constant.scales
    exact = constant.exact.astype(np.float64)
    scale = float(np.float32((np.abs(exact).max() or 1.0) / GREATEST))
    return np.rint(exact / scale).astype(np.int16), scale
