"""Model: tensors and operators, one after the other -> a .tflite file of one graph.

Weights are gigabytes, so they are in memory twice and no more: as whoever adds them has them, and in the file's bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

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
_PART_BYTES = 256  # more than a tensor, an operator or a buffer takes beside values, scales and name
_GREATEST_OLD_CODE = 127  # operators beyond it have their number in another field


class Model:
    """A graph under way. Tensors are known by their numbers."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[int, int] = {}
        self._buffers = [schema.BufferT()]  # the empty one, of all tensors without values
        self._constants: dict[tuple[bytes, str], int] = {}

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(self._tensors[tensor].shape)

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str, scales: float | np.ndarray | None = None, *, axis: int = 0
    ) -> int:
        """Add a tensor without values. With `scales` it is quantized, zero point 0; several are those of `axis`."""
        values = None if scales is None else np.atleast_1d(np.asarray(scales, np.float32))
        quantization = None
        if values is not None:
            zeros = np.zeros(len(values), np.int64)
            quantization = schema.QuantizationParametersT(scale=values, zeroPoint=zeros, quantizedDimension=axis)
        added = schema.TensorT(name=name.encode(), shape=list(shape), type=_TYPES[dtype], buffer=0, quantization=quantization)
        self._tensors.append(added)
        return len(self._tensors) - 1

    def constant(self, name: str, values: np.ndarray, scales: float | np.ndarray | None = None, *, axis: int = 0) -> int:
        """Add a tensor with values, which must stay as they are until the file is written."""
        number = self.tensor(name, values.shape, values.dtype.name, scales, axis=axis)
        self._buffers.append(_Aligned(data=values))
        self._tensors[number].buffer = len(self._buffers) - 1
        return number

    def numbers(self, *values: int) -> int:
        """Return a constant of INT32, such as a shape or axes; the same values are one tensor."""
        array = np.array(values, np.int32)
        key = (array.tobytes(), "int32")
        if key not in self._constants:
            self._constants[key] = self.constant(f"numbers.{'x'.join(map(str, values))}", array)
        return self._constants[key]

    def operator(self, code: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None) -> None:
        """Add an operator by its name in TFLite's schema. An input of -1 is left out."""
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

    def write(self, path: Path, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        """Write the file. Its one signature has the names of inputs and outputs."""
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
            operatorCodes=[_code(number) for number in self._codes],
            subgraphs=[graph],
            description=b"quadbench",
            buffers=self._buffers,
            signatureDefs=[signature],
        )
        builder = flatbuffers.Builder(self._most_bytes())
        builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        with path.open("wb") as file:
            file.write(memoryview(builder.Bytes)[builder.Head() :])

    def _most_bytes(self) -> int:
        """Return about the size of the file, rather more: a builder that has to grow holds everything three times."""
        values = sum(buffer.data.nbytes for buffer in self._buffers[1:])
        scales = sum(len(t.quantization.scale) for t in self._tensors if t.quantization) * _SCALE_BYTES
        parts = len(self._tensors) + len(self._operators) + len(self._buffers)
        return int(values + scales + sum(len(t.name) for t in self._tensors) + parts * _PART_BYTES + 2**16)


class _Aligned(schema.BufferT):  # type: ignore[misc]
    """An array whose values begin at a multiple of 16 bytes in the file, as the schema demands.

    flatbuffers' Python has no word for that, and would copy the values first.
    """

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802  (flatbuffers' name)
        """Write the values, and return where."""
        size = self.data.nbytes
        builder.StartVector(1, size, _ALIGNMENT)
        builder.head -= size
        place = np.frombuffer(builder.Bytes, self.data.dtype, self.data.size, builder.head)
        place.reshape(self.data.shape)[...] = self.data
        values = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, values)
        return int(schema.BufferEnd(builder))


def _code(number: int) -> Any:
    return schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=min(number, _GREATEST_OLD_CODE), version=1)


def _named(tensors: dict[str, int]) -> list[Any]:
    return [schema.TensorMapT(name=name.encode(), tensorIndex=number) for name, number in tensors.items()]
