"""Targets: the tagged union of what a bundle can be compiled for, and each target's name in one word."""

import re
from typing import Annotated, Literal, TypeAlias, assert_never

from pydantic import Field

from quadbench.spec import Spec
from quadbench.target.toolchain import ToolchainTarget


class OnnxRuntimeTarget(Spec):
    """ONNX Runtime on the device's CPU."""

    backend: Literal["onnxruntime"]
    execution_provider: Literal["cpu", "xnnpack"]


class QnnTarget(Spec):
    """Qualcomm's HTP, from a context binary."""

    backend: Literal["qnn"]
    htp_arch: str = Field(pattern=r"^v[0-9]{2}$")
    soc_model: int = Field(gt=0)


class AiHubTarget(Spec):
    """Qualcomm's HTP, compiled by Qualcomm AI Hub for one of its devices."""

    backend: Literal["ai_hub"]
    device: str = Field(min_length=1)
    """As the service names it: `Samsung Galaxy S25 (Family)`."""
    runtime: Literal["precompiled_qnn_onnx", "qnn_context_binary"]
    """A context binary inside an ONNX model, or by itself."""
    qairt_version: str | None = Field(default=None, pattern=r"^[0-9]+(\.[0-9]+)*$")
    """Of the SDK that compiles; the service's default where it is not given."""
    timeout_s: float = Field(default=4 * 3600.0, gt=0)
    """How long its jobs are waited for."""


RunTarget: TypeAlias = Annotated[OnnxRuntimeTarget | QnnTarget | AiHubTarget, Field(discriminator="backend")]
"""What a device can run: the harness loads the product."""
Target: TypeAlias = Annotated[OnnxRuntimeTarget | QnnTarget | AiHubTarget | ToolchainTarget, Field(discriminator="backend")]
"""What a bundle can be compiled for."""


def target_key(target: Target, machine: str) -> str:
    """What compiled graphs are made for, in one word: `onnxruntime-cpu-x86_64`, `qnn-v79-69`. `machine` as `uname -m` says."""
    match target:
        case OnnxRuntimeTarget():
            return f"onnxruntime-{target.execution_provider}-{machine}"
        case QnnTarget():
            return f"qnn-{target.htp_arch}-{target.soc_model}"
        case ToolchainTarget():
            return f"toolchain-{target.name}"
        case AiHubTarget():
            words = ("ai-hub", target.device, target.runtime, target.qairt_version or "")
            return re.sub(r"[^a-z0-9.]+", "-", " ".join(words).lower()).strip("-")
        case _:
            assert_never(target)
