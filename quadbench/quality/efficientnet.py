"""EfficientNet-Lite0: trained ImageNet weights -> features of images.

Tan and Le, EfficientNet, ICML 2019 (arXiv 1905.11946), in its Lite form: no squeeze-and-excite, ReLU6. The weights come from
TensorFlow, and so do its padding, which is uneven where a stride is 2, and the epsilon of its normalization.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional as F

SIZE = 224  # pixels; the network was trained on images of this size
_EPSILON = 1e-3
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of the 16 blocks


class EfficientNetLite0:
    """The network: images (N, 3, H, W) in [0, 1], stretched to 224 x 224 -> features (N, 1280)."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self._weights = weights

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(images, size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1) * 2 - 1
        x = F.relu6(self._normalize(self._convolve(x, "_conv_stem", stride=2), "_bn0"))  # (N, 32, 112, 112)
        for index, stride in enumerate(_STRIDES):
            x = self._block(x, f"_blocks.{index}", stride)
        x = F.relu6(self._normalize(self._convolve(x, "_conv_head"), "_bn1"))  # (N, 1280, 7, 7)
        return x.mean(dim=(2, 3))

    def _block(self, x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        """Apply an inverted residual: widen (but in block 0), convolve each channel, narrow; add the input if shapes allow."""
        y = x
        if f"{name}._expand_conv.weight" in self._weights:
            y = F.relu6(self._normalize(self._convolve(y, f"{name}._expand_conv"), f"{name}._bn0"))
        y = self._convolve(y, f"{name}._depthwise_conv", stride=stride, groups=y.shape[1])
        y = F.relu6(self._normalize(y, f"{name}._bn1"))
        y = self._normalize(self._convolve(y, f"{name}._project_conv"), f"{name}._bn2")
        return x + y if x.shape == y.shape else y

    def _convolve(self, x: torch.Tensor, name: str, *, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = self._weights[f"{name}.weight"]
        return F.conv2d(_padded(x, weight.shape[-1], stride), weight, stride=stride, groups=groups)

    def _normalize(self, x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance, weight, bias = (
            self._weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, eps=_EPSILON)


def _padded(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Pad as TensorFlow's SAME does: as many positions as steps fit, the odd pixel of padding to the right and below."""
    (top, bottom), (left, right) = (_margins(size, kernel, stride) for size in x.shape[2:])
    return F.pad(x, (left, right, top, bottom))


def _margins(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
