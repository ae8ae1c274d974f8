"""Finite: numbers from a caller -> an array in which none is NaN or infinite."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def finite(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return `values`, which an error calls `name`, as an array.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    data = np.asarray(values, dtype=np.float64)
    if not np.isfinite(data).all():
        raise ValueError(f"{name} hold {data[~np.isfinite(data)][0]}; expected finite numbers")
    return data
