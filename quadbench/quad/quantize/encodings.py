"""Encodings: scale and zero point from ranges, and affine quantization of float arrays to integers.

s = (max - min) / (qmax - qmin) over a range that includes 0, q = clip(round(x / s) + z). (The paper's equations 5 to 7 mix an
integer and a real offset; its runtimes do not compute them.)
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from quadbench.host import usable_cores

_BLOCK = 2**17  # values that are quantized at a time, so that they stay in a core's cache
_LIMITS = {
    "uint16": (0, 65535),
    "uint8": (0, 255),
    "int16": (-32767, 32767),
    "int8": (-127, 127),
    "int32": (-(2**31) + 1, 2**31 - 1),
}


def limits(dtype: str) -> tuple[int, int]:
    """Return the least and greatest integer that quantized values of this NumPy dtype may have."""
    return _LIMITS[dtype]


@dataclass(frozen=True, kw_only=True)
class Range:
    """The least and greatest observed value of a tensor."""

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        return max(abs(self.low), abs(self.high))

    def scaled(self, factor: float) -> "Range":
        """Return the range with both ends multiplied by a factor."""
        return Range(low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The quantization of a whole tensor: value = (integer - zero_point) * scale. `dtype` is a NumPy type name, like `uint16`."""

    dtype: str
    scale: float
    zero_point: int = 0

    @property
    def limit(self) -> int:
        """Return the greatest integer that a value in this encoding may have."""
        return _LIMITS[self.dtype][1]

    @property
    def bits(self) -> int:
        return np.dtype(self.dtype).itemsize * 8


def range_of(values: np.ndarray) -> Range:
    """Return the least and greatest value of an array as a Range."""
    return Range(low=float(values.min()), high=float(values.max()))


def asymmetric(values: Range, dtype: str) -> Encoding:
    """Return an encoding with integer type `dtype` for values in a range. The range is first extended to include 0."""
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    qmin, qmax = _LIMITS[dtype]
    if high == low:
        high = low + 1.0  # all zeros: any scale represents them
    scale = float(np.float32((high - low) / (qmax - qmin)))
    return Encoding(dtype=dtype, scale=scale, zero_point=int(np.clip(np.rint(qmin - low / scale), qmin, qmax)))


def widen(encoding: Encoding) -> Encoding:
    """Turn a UINT8 encoding into a UINT16 encoding with the same range, which represents all its 256 values exactly."""
    return Encoding(dtype="uint16", scale=float(np.float32(encoding.scale / 257)), zero_point=encoding.zero_point * 257)


def symmetric(magnitude: float, dtype: str) -> Encoding:
    """Return an encoding with zero point 0 for values from -magnitude to magnitude. Zeros, as in padding, are exact."""
    return Encoding(dtype=dtype, scale=float(np.float32((magnitude or 1.0) / _LIMITS[dtype][1])))


def quantize(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Return the values as integers, rounded half to even and clipped like ONNX QuantizeLinear."""
    qmin, qmax = _LIMITS[encoding.dtype]
    q = np.rint(values.astype(np.float32) / np.float32(encoding.scale)) + encoding.zero_point
    return np.clip(q, qmin, qmax).astype(encoding.dtype)


def dequantize(integers: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Return the float32 values of integers, computed like ONNX DequantizeLinear."""
    return (integers.astype(np.int32) - encoding.zero_point).astype(np.float32) * np.float32(encoding.scale)


def quantize_channels(values: np.ndarray, axis: int, *, least_scales: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return symmetric INT8 integers and float32 scales for the values, with one scale for each index of `axis`."""
    channels = np.moveaxis(values, axis, 0)
    rows = channels.reshape(len(channels), -1)  # a view, except where the axis is not the first
    integers, scales = np.empty(rows.shape, np.int8), np.empty(len(rows), np.float32)
    least, greatest = _LIMITS["int8"]

    def quantize_block(block: slice) -> None:
        own = rows[block]
        magnitude = np.maximum(own.max(1), -own.min(1))
        scale = (np.where(magnitude == 0, 1.0, magnitude) / greatest).astype(np.float32)
        if least_scales is not None:
            scale = np.maximum(scale, least_scales[block].astype(np.float32))
        scaled = own / scale[:, None]
        integers[block], scales[block] = np.clip(np.rint(scaled, out=scaled), least, greatest, out=scaled), scale

    count = max(1, _BLOCK // max(1, rows.shape[1]))
    blocks = [slice(start, start + count) for start in range(0, len(rows), count)]
    if len(blocks) == 1:
        quantize_block(blocks[0])
    else:
        with ThreadPoolExecutor(len(usable_cores())) as pool:
            list(pool.map(quantize_block, blocks))
    return np.moveaxis(integers.reshape(channels.shape), 0, axis), scales


def quantize_bias(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return a bias as an INT32 array with zero point 0. `scales` is a layer's input scale times its weight scales."""
    return np.clip(np.rint(values.astype(np.float64) / scales), *_LIMITS["int32"]).astype(np.int32)
