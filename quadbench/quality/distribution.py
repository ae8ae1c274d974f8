"""Distribution: features of two sets of images -> KID and FID."""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating]  # (n, d), row i of both sets from the same pair


def kernel_distance(first: Features, second: Features) -> float:
    """Return KID, the squared maximum mean discrepancy of kernel (x.y / d + 1)^3 (Binkowski et al. 2018, arXiv 1801.01401).

    The estimate is the U-statistic over pairs of pairs (Gretton et al. 2012, JMLR 13, eq. 4), the mean over i != j of
    k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i). It is unbiased also where x_i and y_i belong together, as a quantized
    image and its reference do, and 0 where the sets are equal; the usual one counts k(x_i, y_i) as if they were strangers.
    It takes all images at once, so nothing is drawn at random.
    """
    x, y = first.astype(np.float64), second.astype(np.float64)
    h = _kernel(x, x) + _kernel(y, y) - _kernel(x, y) - _kernel(y, x)
    n = len(x)
    return float((h.sum() - np.trace(h)) / (n * (n - 1)))


def _kernel(x: Features, y: Features) -> Features:
    return (x @ y.T / x.shape[1] + 1) ** 3


def frechet_distance(first: Features, second: Features) -> float:
    """Return FID, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, arXiv 1706.08500), covariances with n - 1.

    With C = A'A, A the centred features / sqrt(n - 1), the last trace is the nuclear norm of A1 A2': exact also where n < d,
    where the matrix square root of the singular C1 C2 is not.
    """
    means, factors = zip(*(_mean_and_factor(f.astype(np.float64)) for f in (first, second)), strict=True)
    a, b = factors
    cross = np.linalg.norm(_triangle(a) @ _triangle(b).T, "nuc")
    distance = np.square(means[0] - means[1]).sum() + np.square(a).sum() + np.square(b).sum() - 2 * cross
    return max(0.0, float(distance))


def _mean_and_factor(features: Features) -> tuple[Features, Features]:
    mean = features.mean(axis=0)
    return mean, (features - mean) / np.sqrt(len(features) - 1)


def _triangle(factor: Features) -> Features:
    """Return R of A = Q R, at most (d, d): Q changes no singular value."""
    return np.linalg.qr(factor)[1]
