"""ST-LPIPS: trained weights -> the perceptual distance of two images that small shifts change little.

Ghildyal and Liu, Shift-tolerant Perceptual Similarity Metric, ECCV 2022 (arXiv 2207.13686), with AlexNet. Not LPIPS: its
values lie on another scale.
"""

from collections.abc import Iterator, Mapping

import torch
from torch.nn import functional as F

LEAST_PIXELS = 21  # below, the third blur has less to reflect than it needs
_EPSILON = 1e-10  # the authors', against a division by zero


class StLpips:
    """The metric's network: images and others, (N, 3, H, W) in [0, 1] at their own size -> distances (N,)."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self._weights = weights

    def __call__(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        layers = zip(self._layers(images), self._layers(others), strict=True)
        return sum((self._distance(i, first, second) for i, (first, second) in enumerate(layers)), torch.zeros(len(images)))

    def _distance(self, index: int, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return (N,): squared difference of the features, scaled to length 1, weighted by channel, averaged over positions."""
        difference = (_unit(first) - _unit(second)).square()  # (N, C, h, w)
        weighted = F.conv2d(difference, self._weights[f"lin{index}.model.1.weight"])  # (N, 1, h, w)
        return weighted.mean(dim=(1, 2, 3))

    def _layers(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the outputs of AlexNet's five convolutions; it blurs before it halves, and its first convolution has stride 1."""
        weights = self._weights
        x = (2 * images - 1 - weights["scaling_layer.shift"]) / weights["scaling_layer.scale"]
        x = F.relu(self._blur(self._convolve(x, "net.slice1.0", padding=2), "net.slice1.1"))
        yield x
        x = self._blur(F.max_pool2d(x, 3, stride=1), "net.slice2.4")
        x = F.relu(self._convolve(x, "net.slice2.5", padding=2))
        yield x
        x = self._blur(F.max_pool2d(x, 3, stride=1), "net.slice3.8")
        for name in ("net.slice3.9", "net.slice4.11", "net.slice5.13"):
            x = F.relu(self._convolve(x, name, padding=1))
            yield x

    def _convolve(self, x: torch.Tensor, name: str, *, padding: int) -> torch.Tensor:
        return F.conv2d(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], padding=padding)

    def _blur(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """Filter every channel with the file's own 3 x 3 filter, then keep every second position."""
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self._weights[f"{name}.filt"], stride=2, groups=x.shape[1])


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Scale the features to length 1 at every position."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + _EPSILON)
