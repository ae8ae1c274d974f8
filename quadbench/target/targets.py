"""Targets: a backend and its options -> a target of the tagged union that bundles are compiled for, and its name in one word."""

import re
from typing import Annotated, Literal, TypeAlias, assert_never

from pydantic import Field

from quadbench.spec import Spec, TextLike
from quadbench.target.toolchain import ToolchainTarget
from quadbench.target.vendors import VENDORS, vendor_of

HtpArch: TypeAlias = Annotated[str, TextLike(pattern="v[0-9]{2}", expected="a Hexagon architecture, as v73, v75, v79 or v81")]
_LiteRtSoc = Annotated[
    str,
    TextLike(
        pattern=f"({'|'.join(VENDORS)})[A-Za-z0-9]+", expected="a chip as LiteRT names it, as SM8750, MT6991, E9965 or Tensor_G5"
    ),
]
_Version = Annotated[str, TextLike(pattern=r"[0-9]+(\.[0-9]+)*", expected="numbers joined by dots, as 2.50")]


class OnnxRuntimeTarget(Spec):
    """The device's CPU, by ONNX Runtime."""

    backend: Literal["onnxruntime"]
    """Runs the graphs in ONNX Runtime."""
    execution_provider: Literal["cpu", "xnnpack"]
    """ONNX Runtime runs quantized graphs with this provider: its own for the CPU, or XNNPACK."""


PerformanceMode: TypeAlias = Literal[
    "burst", "balanced", "default", "high_performance", "high_power_saver", "low_balanced", "low_power_saver", "power_saver",
    "extreme_power_saver", "sustained_high_performance",
]  # fmt: skip
"""The modes of Qualcomm's HTP that ONNX Runtime's provider takes as `htp_performance_mode`; of others it only warns."""


class QnnTarget(Spec):
    """Qualcomm's HTP, from a context binary."""

    backend: Literal["qnn"]
    """Compiles here, with Qualcomm's compiler."""
    htp_arch: HtpArch
    """The chip's Hexagon tensor processor has this architecture, as v79."""
    soc_model: int = Field(gt=0)
    """The chip has this number in Qualcomm's SDK, above 0."""
    performance_mode: PerformanceMode = "default"
    """Runs take this mode of the processor's clocks and voltages, as burst; compiled graphs are the same for all.
    The default is `default`, which leaves it to Qualcomm's libraries."""


class AiHubTarget(Spec):
    """Qualcomm's HTP, compiled by Qualcomm AI Hub for one of its devices."""

    backend: Literal["ai_hub"]
    """Compiles at Qualcomm AI Hub."""
    device: str = Field(min_length=1)
    """The service has the device under this name, as `Samsung Galaxy S25 (Family)`."""
    runtime: Literal["precompiled_qnn_onnx", "qnn_context_binary"]
    """The product is a context binary, inside an ONNX model or by itself."""
    qairt_version: _Version | None = None
    """The service compiles with this version of the SDK, as 2.50. The default is null: the service chooses."""
    timeout_s: float = Field(default=4 * 3600.0, gt=0)
    """Jobs are waited for during this many seconds, above 0. The default is 14400."""


class LiteRtTarget(Spec):
    """The device's CPU or NPU, by Google's LiteRT."""

    backend: Literal["litert"]
    """Compiles here, for an NPU with its vendor's compiler."""
    soc: _LiteRtSoc | None = None
    """LiteRT has the chip under this name, as SM8750, MT6991, E9965 or Tensor_G5. The default is null: the device's CPU."""

    @property
    def is_for_htp(self) -> bool:
        """Say whether Qualcomm's HTP runs it."""
        return self.soc is not None and vendor_of(self.soc) is VENDORS["SM"]


RunTarget: TypeAlias = Annotated[OnnxRuntimeTarget | QnnTarget | AiHubTarget | LiteRtTarget, Field(discriminator="backend")]
"""A target that a device can run: the harness loads the product."""
Target: TypeAlias = Annotated[
    OnnxRuntimeTarget | QnnTarget | AiHubTarget | LiteRtTarget | ToolchainTarget, Field(discriminator="backend")
]
"""A target that a bundle can be compiled for."""


def target_key(target: Target, machine: str) -> str:
    """Return a target in one word: `onnxruntime-cpu-x86_64`, `litert-mt6991`. `machine` is what `uname -m` says there."""
    match target:
        case OnnxRuntimeTarget():
            return f"onnxruntime-{target.execution_provider}-{machine}"
        case QnnTarget():
            return f"qnn-{target.htp_arch}-{target.soc_model}"
        case ToolchainTarget():
            return f"toolchain-{target.name}"
        case LiteRtTarget():
            return f"litert-{target.soc or f'cpu-{machine}'}".lower()
        case AiHubTarget():
            words = ("ai-hub", target.device, target.runtime, target.qairt_version or "")
            return re.sub(r"[^a-z0-9.]+", "-", " ".join(words).lower()).strip("-")
        case _:
            assert_never(target)
