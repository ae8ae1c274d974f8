"""Flatbuffer: a writer that collects the tensors and operators of a quantized graph and saves them as a .tflite file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from quadbench.compile.tflite.rounded_graph import GREATEST, Constant, Operation, RoundedGraph, Shape
from quadbench.errors import BuildError

FILE_IDENTIFIER = b"TFL3"
_VERSION = 3
_SIGNATURE = "serving_default"
_ALIGNMENT = 16
_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
}
_SCALE_BYTES = 4 + 8  # a scale and its zero point
_PART_BYTES = 256  # an upper bound for a tensor, operator or buffer without values, scales and name
_MAX_OLD_CODE = 127  # operators with greater codes use another field
IMAGE_RANK = 4
TO_LAST, TO_PLAIN = (0, 2, 3, 1), (0, 3, 1, 2)


class TfliteWriter:
    """A writer that collects tensors and operators and saves a .tflite file. A tensor's index is its position in the file."""

    def __init__(self, graph: RoundedGraph) -> None:
        self.graph = graph
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[int, int] = {}
        self._buffers = [schema.BufferT()]  # the empty buffer of all tensors without values
        self._constants: dict[bytes, int] = {}
        self._plain: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._read = {name for op in graph.operations for name in op.inputs} | set(graph.outputs.values())
        self._inputs = {name: self._input(name, dtype) for name, dtype in graph.inputs.items()}

    def write(self, path: Path) -> None:
        """Save the .tflite file after all operations are added. The file's signature names the graph's inputs and outputs."""
        inputs, outputs = self._inputs, {name: self._output(name, source) for name, source in self.graph.outputs.items()}
        graph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=list(inputs.values()),
            outputs=list(outputs.values()),
            operators=self._operators,
            name=b"main",
        )
        signature = schema.SignatureDefT(
            inputs=_named(inputs), outputs=_named(outputs), signatureKey=_SIGNATURE.encode(), subgraphIndex=0
        )
        model = schema.ModelT(
            version=_VERSION,
            operatorCodes=[
                schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=min(number, _MAX_OLD_CODE), version=1)
                for number in self._codes
            ],
            subgraphs=[graph],
            description=b"quadbench",
            buffers=self._buffers,
            signatureDefs=[signature],
        )
        # An upper estimate of the file size, as a builder that has to grow needs three times the memory.
        values = sum(buffer.data.nbytes for buffer in self._buffers[1:])
        scales = sum(len(t.quantization.scale) for t in self._tensors if t.quantization) * _SCALE_BYTES
        parts = len(self._tensors) + len(self._operators) + len(self._buffers)
        max_bytes = values + scales + sum(len(t.name) for t in self._tensors) + parts * _PART_BYTES + 2**16
        builder = flatbuffers.Builder(int(max_bytes))
        builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        with path.open("wb") as file:
            file.write(memoryview(builder.Bytes)[builder.Head() :])

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(self._tensors[tensor].shape)

    def tensor(self, name: str, shape: Sequence[int], dtype: str, scales: float | np.ndarray | None = None) -> int:
        """Add a tensor without values and return its index. `scales` is one scale, or one scale per row; the zero point is 0."""
        quantization = None
        if scales is not None:
            values = np.atleast_1d(np.asarray(scales, np.float32))
            zeros = np.zeros(len(values), np.int64)
            quantization = schema.QuantizationParametersT(scale=values, zeroPoint=zeros, quantizedDimension=0)
        added = schema.TensorT(name=name.encode(), shape=list(shape), type=_TYPES[dtype], buffer=0, quantization=quantization)
        self._tensors.append(added)
        return len(self._tensors) - 1

    def constant(self, name: str, values: np.ndarray, scales: float | np.ndarray | None = None) -> int:
        """Add a tensor with values and return its index. The values must not change until the file is written."""
        number = self.tensor(name, values.shape, values.dtype.name, scales)
        self._buffers.append(_Aligned(data=values))
        self._tensors[number].buffer = len(self._buffers) - 1
        return number

    def int32_constant(self, *values: int) -> int:
        """Return the index of an INT32 constant, such as a shape or axes. Equal values share one tensor."""
        array = np.array(values, np.int32)
        key = array.tobytes()
        if key not in self._constants:
            self._constants[key] = self.constant(f"numbers.{'x'.join(map(str, values))}", array)
        return self._constants[key]

    def operator(self, code: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None) -> None:
        """Add an operator by its name in TFLite's schema, between tensors given by index. Index -1 omits an optional input."""
        number = getattr(schema.BuiltinOperator, code)
        kind = type(options).__name__.removesuffix("T") if options is not None else "NONE"
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=self._codes.setdefault(number, len(self._codes)),
                inputs=list(inputs),
                outputs=list(outputs),
                builtinOptionsType=getattr(schema.BuiltinOptions, kind),
                builtinOptions=options,
            )
        )

    def plain(self, name: str) -> int:
        """Return a tensor's index in ONNX's layout (channels first). If only channels-last layout exists, add a TRANSPOSE."""
        if name not in self._plain:
            is_turned = name in self._last
            self._plain[name] = (
                self.transpose(self._last[name], name, TO_PLAIN) if is_turned else self._constant(name, last=False)
            )
        return self._plain[name]

    def channels_last(self, name: str) -> int:
        """Return a four-dimensional tensor's index in channels-last layout. If only ONNX's layout exists, add a TRANSPOSE."""
        if name in self._plain and len(shape := self.graph.shapes[name]) != IMAGE_RANK:
            raise BuildError(f"'{name}' has the shape {shape} beside images, which is not supported for LiteRT")
        if name not in self._last:
            is_turned = name in self._plain
            self._last[name] = self.transpose(self._plain[name], name, TO_LAST) if is_turned else self._constant(name, last=True)
        return self._last[name]

    def is_channels_last(self, *names: str) -> bool:
        """Return whether any tensor in `names` exists in channels-last layout."""
        return any(name in self._last for name in names)

    def add_result(self, name: str, *, last: bool = False) -> int:
        """Add an operation's output, the INT16 tensor `name`, and return its index. If `last`, the layout is channels-last."""
        shape = self.graph.shapes[name]
        number = self.tensor(name, [shape[i] for i in TO_LAST] if last else shape, "int16", self.graph.scales[name])
        self.register(name, number, last=last)
        return number

    def is_read(self, name: str) -> bool:
        """Return whether any operation of the graph reads a tensor, or the tensor is a graph output."""
        return name in self._read

    def register(self, name: str, number: int, *, last: bool = False) -> None:
        """Record a tensor's index under its ONNX name. `last` means that the tensor's layout is channels-last."""
        (self._last if last else self._plain)[name] = number

    def transpose(self, tensor: int, name: str, order: Shape) -> int:
        """Add a TRANSPOSE of a tensor to the axis order `order`. Return the result's index. `name` is the tensor's ONNX name."""
        shape = self.shape(tensor)
        turned = self.intermediate(f"{name}.{'x'.join(map(str, order))}", tuple(shape[i] for i in order), self.graph.scales[name])
        self.operator("TRANSPOSE", [tensor, self.int32_constant(*order)], [turned])
        return turned

    def reshape(self, tensor: int, result: int) -> int:
        """Add a RESHAPE operator that reshapes a tensor into the existing tensor `result`. Return the index `result`."""
        self.operator("RESHAPE", [tensor, self.int32_constant(*self.shape(result))], [result])
        return result

    def layouts_of(self, name: str) -> tuple[int | None, int | None]:
        """Return a tensor's indices (in ONNX's layout, in channels-last layout). An index is None if that layout is missing."""
        return self._plain.get(name), self._last.get(name)

    def intermediate(self, name: str, shape: Shape, scale: float | None = None) -> int:
        """Add an intermediate tensor and return its index. Its type is INT16 if a scale is given, and float otherwise."""
        return self.tensor(name, shape, "float32" if scale is None else "int16", scale)

    def constant_input(self, op: Operation, index: int) -> Constant:
        """Return an operation's input number `index`, a Constant. Raise BuildError if the input is omitted or not constant."""
        if index >= len(op.inputs) or op.inputs[index] not in self.graph.constants:
            raise BuildError(f"{op} needs a constant as input {index}", hint="make weights constants or LoRA inputs")
        return self.graph.constants[op.inputs[index]]

    def _input(self, name: str, dtype: str) -> int:
        """Add a graph input and return its index. If it must be quantized, add a QUANTIZE whose INT16 output operators read."""
        shape, scale = self.graph.shapes[name], self.graph.scales.get(name)
        number = self.tensor(name, shape, dtype, None if dtype == "float32" else scale)
        inside = number
        if scale is not None and dtype != "int16":
            inside = self.intermediate(f"{name}.rounded", shape, scale)
            self.operator("QUANTIZE", [number], [inside])
        self.register(name, inside)
        return number

    def _output(self, name: str, source: str) -> int:
        number = self.tensor(name, self.graph.shapes[source], "float32")
        self.operator("DEQUANTIZE", [self.plain(source)], [number])
        return number

    def _constant(self, name: str, *, last: bool) -> int:
        """Add an INT16 constant and return its index. Quantize other types so that the greatest magnitude becomes 32767."""
        constant = self.graph.constants[name]
        if constant.scales is None and constant.values.dtype.kind != "f":
            raise BuildError(f"'{name}' has {constant.values.dtype} values without a scale, which are not supported for LiteRT")
        values, scale = constant.values, cast(Any, constant.scales)
        if values.dtype != np.int16:
            exact = constant.dequantized.astype(np.float64)
            scale = float(np.float32((np.abs(exact).max() or 1.0) / GREATEST))
            values = np.rint(exact / scale).astype(np.int16)
        if last and values.size > 1:
            values = values.reshape((1,) * (IMAGE_RANK - values.ndim) + values.shape).transpose(TO_LAST)
        return self.constant(f"{name}.last" if last else name, values, scale)


class _Aligned(schema.BufferT):  # type: ignore[misc]
    """A .tflite buffer with values aligned to 16 bytes. TFLite's schema requires it; the flatbuffers package cannot do it."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802  (flatbuffers' name)
        """Write the buffer with a flatbuffer builder, values aligned to 16 bytes. Return the buffer's offset in the builder."""
        size = self.data.nbytes
        builder.StartVector(1, size, _ALIGNMENT)
        builder.head -= size
        place = np.frombuffer(builder.Bytes, self.data.dtype, self.data.size, builder.head)
        place.reshape(self.data.shape)[...] = self.data
        values = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, values)
        return int(schema.BufferEnd(builder))


def _named(tensors: dict[str, int]) -> list[Any]:
    return [schema.TensorMapT(name=name.encode(), tensorIndex=number) for name, number in tensors.items()]
