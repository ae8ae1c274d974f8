"""Encodings: ranges -> scale and zero point; float arrays -> integers. Standard affine quantization.

s = (max - min) / (qmax - qmin) over a range that includes 0, q = clip(round(x / s) + z). (The paper's equations 5 to 7 mix an
integer and a real offset; they are not what its runtimes execute.)
"""

from dataclasses import dataclass

import numpy as np

_LIMITS = {
    "uint16": (0, 65535),
    "uint8": (0, 255),
    "int16": (-32767, 32767),
    "int8": (-127, 127),
    "int32": (-(2**31) + 1, 2**31 - 1),
}


def limits(dtype: str) -> tuple[int, int]:
    """Return the least and greatest integer that encodings of this dtype use."""
    return _LIMITS[dtype]


@dataclass(frozen=True, kw_only=True)
class Range:
    """The least and greatest value of a tensor, as observed."""

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        return max(abs(self.low), abs(self.high))

    def scaled(self, factor: float) -> "Range":
        """Return the range with both ends multiplied."""
        return Range(low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The scale and zero point of one whole tensor: a value is (integer - zero_point) * scale. `dtype` is NumPy's name."""

    dtype: str
    scale: float
    zero_point: int = 0

    @property
    def limit(self) -> int:
        """The greatest integer."""
        return _LIMITS[self.dtype][1]

    @property
    def bits(self) -> int:
        return np.dtype(self.dtype).itemsize * 8


def range_of(values: np.ndarray) -> Range:
    """Return the range of an array."""
    return Range(low=float(values.min()), high=float(values.max()))


def asymmetric(values: Range, dtype: str) -> Encoding:
    """Return the encoding of activations or constants with this range; its zero point is the integer that 0 falls on."""
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    qmin, qmax = _LIMITS[dtype]
    if high == low:
        high = low + 1.0  # all zeros: any scale represents them
    scale = float(np.float32((high - low) / (qmax - qmin)))
    return Encoding(dtype=dtype, scale=scale, zero_point=int(np.clip(np.rint(qmin - low / scale), qmin, qmax)))


def widened(encoding: Encoding) -> Encoding:
    """Return UINT16 in place of UINT8 over the same range; each of the 256 values is one of the 65536."""
    return Encoding(dtype="uint16", scale=float(np.float32(encoding.scale / 257)), zero_point=encoding.zero_point * 257)


def symmetric(magnitude: float, dtype: str) -> Encoding:
    """Return the encoding of LoRA inputs up to this magnitude; its zero point is 0, so that padding with zeros is exact."""
    return Encoding(dtype=dtype, scale=float(np.float32((magnitude or 1.0) / _LIMITS[dtype][1])))


def quantize(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Round half to even and clip, as ONNX QuantizeLinear does. The shape stays, the dtype is the encoding's."""
    qmin, qmax = _LIMITS[encoding.dtype]
    q = np.rint(values.astype(np.float32) / np.float32(encoding.scale)) + encoding.zero_point
    return np.clip(q, qmin, qmax).astype(encoding.dtype)


def dequantize(integers: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Return the values of the integers, float32, as ONNX DequantizeLinear computes them."""
    return (integers.astype(np.int32) - encoding.zero_point).astype(np.float32) * np.float32(encoding.scale)


def quantize_channels(values: np.ndarray, axis: int, *, least_scales: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Quantize to INT8, symmetrically, with a scale for each index of `axis`: (integers, float32 scales of that axis' length)."""
    rest = tuple(i for i in range(values.ndim) if i != axis)
    magnitude = np.abs(values).max(axis=rest)
    scales = (np.where(magnitude == 0, 1.0, magnitude) / _LIMITS["int8"][1]).astype(np.float32)
    if least_scales is not None:
        scales = np.maximum(scales, least_scales.astype(np.float32))
    shape = [1] * values.ndim
    shape[axis] = -1
    return np.clip(np.rint(values / scales.reshape(shape)), *_LIMITS["int8"]).astype(np.int8), scales


def quantize_bias(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Quantize a bias to INT32; `scales` are the products of input and weight scales, the zero point is 0."""
    return np.clip(np.rint(values.astype(np.float64) / scales), *_LIMITS["int32"]).astype(np.int32)
