"""Targets: the chips and runtimes that a recipe's models are compiled for, and the vendors of chips."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self, TypeAlias, assert_never

from pydantic import Field, field_validator, model_validator

from quadbench.spec import Name, Problem, Spec, refuse
from quadbench.spec.spec_model import TextPattern, near


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """A chip vendor. `module` is LiteRT's name for the vendor; `library` is the shared library of the vendor's compiler.

    `dispatch` is the library with which LiteRT runs that compiler's graphs on a device.
    """

    title: str
    module: str
    library: str
    sdk_package: str
    dispatch: str

    @property
    def sdk_module(self) -> str:
        """Return the import name of the vendor's SDK package."""
        return f"ai_edge_litert_sdk_{self.module}"


VENDORS = {
    "SM": Vendor(
        title="Qualcomm",
        module="qualcomm",
        library="libQnnHtp.so",
        sdk_package="ai-edge-litert-sdk-qualcomm",
        dispatch="libLiteRtDispatch_Qualcomm.so",
    ),
    "MT": Vendor(
        title="MediaTek",
        module="mediatek",
        library="libneuronusdk_adapter.mtk.so",
        sdk_package="ai-edge-litert-sdk-mediatek",
        dispatch="libLiteRtDispatch_MediaTek.so",
    ),
    "E": Vendor(
        title="Samsung",
        module="samsung",
        library="libgraphgen_api.so",
        sdk_package="ai-edge-litert-sdk-samsung-nightly",
        dispatch="libLiteRtDispatch_Samsung.so",
    ),
    "Tensor_": Vendor(
        title="Google",
        module="google_tensor",
        library="liblitert_plugin_compiler.so",
        sdk_package="ai-edge-litert-sdk-google-tensor",
        dispatch="libLiteRtDispatch_GoogleTensor.so",
    ),
}
"""Chip vendors by the prefix of LiteRT's names for their chips."""


def vendor_of(soc: str) -> Vendor:
    """Return the vendor of a chip from LiteRT's name for the chip, such as `SM8750`. An unknown vendor raises StopIteration."""
    return next(vendor for prefix, vendor in VENDORS.items() if soc.startswith(prefix))


INPUT, WORK = "input", "work"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

Command = Annotated[tuple[str, ...], Field(min_length=1)]
EnvironmentName = Annotated[
    str, TextPattern(pattern="[A-Z][A-Z0-9_]*", expected="capital letters, digits and underscores, a letter first")
]


class ToolchainVersion(Spec):
    """The command that prints a toolchain's version, and the pattern that finds the version in its output."""

    command: Command
    """The command that prints the version, as a list of words."""
    pattern: str
    """A regular expression with one group, which matches the version in the command's output. No match is an error."""

    @field_validator("pattern")
    @classmethod
    def _has_one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"expected a regular expression, found '{pattern}': {error}") from error
        if groups != 1:
            raise ValueError(f"expected a regular expression with one group, found '{pattern}' with {groups}")
        return pattern


class ToolchainTarget(Spec):
    """A vendor's compiler that is not built into quadbench: a device profile declares the commands that run it.

    The commands run one after the other, without a shell, in an empty folder. Placeholders in them: `{input}` is the path of the
    ONNX graph, `{work}` that of the folder, and `{NAME}` the value of the environment variable NAME.
    """

    backend: Literal["toolchain"]
    """Compiles on this machine with a vendor's commands."""
    name: Name
    """The target's key is `toolchain-` and this name: lower-case letters and digits in groups joined by hyphens."""
    environment: tuple[EnvironmentName, ...] = ()
    """Environment variables that must be set. Commands can use them as placeholders. The default is none."""
    commands: tuple[Command, ...] = Field(min_length=1)
    """The commands, at least one, in the order in which they run. One of them uses {input}."""
    product: str = Field(min_length=1)
    """A relative path or pattern that matches exactly one file, the compiled graph, which the commands write."""
    version: ToolchainVersion
    """The way to read the toolchain's version."""
    timeout_s: int = Field(gt=0)
    """The time in seconds, above 0, after which a command on a graph is stopped."""
    install: str = Field(min_length=1)
    """The hint in errors if the toolchain is not installed."""

    @field_validator("product")
    @classmethod
    def _lies_in_the_folder(cls, product: str) -> str:
        path = PurePosixPath(product)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"expected a path below the working folder, found '{product}'")
        return product

    @model_validator(mode="after")
    def _placeholders_are_known(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        for number, command in enumerate(self.commands):
            yield from _wrong_words(command, ("commands", number), (INPUT, WORK, *self.environment))
        yield from _wrong_words(self.version.command, ("version", "command"), self.environment)
        if INPUT not in {name for command in self.commands for name in placeholders(command)}:
            yield Problem(location=("commands",), reason=f"expected a command that uses {{{INPUT}}}, the graph; found none")


def placeholders(words: Iterable[str]) -> Iterator[str]:
    """Yield the names of all placeholders in a command's words, such as `input` for `{input}`."""
    for word in words:
        yield from _PLACEHOLDER.findall(word)


def filled(words: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return a command's words with each placeholder in braces replaced by its value in `values`."""
    return [_PLACEHOLDER.sub(lambda match: values[match[1]], word) for word in words]


def _wrong_words(words: Sequence[str], location: tuple[str | int, ...], known: Sequence[str]) -> Iterator[Problem]:
    """Yield a message for each unknown placeholder in a command's words, and for braces that are unbalanced or nested."""
    for number, word in enumerate(words):
        for name in placeholders([word]):
            if name not in known:
                yield Problem(location=(*location, number), reason=f"unknown placeholder '{{{name}}}'" + near(name, known))
        if set(_PLACEHOLDER.sub("", word)) & set("{}"):
            yield Problem(location=(*location, number), reason=f"expected braces around placeholders only, found '{word}'")


HtpArch: TypeAlias = Annotated[str, TextPattern(pattern="v[0-9]{2}", expected="a Hexagon architecture like v73, v75, v79 or v81")]
_LiteRtSoc = Annotated[
    str,
    TextPattern(
        pattern=f"({'|'.join(VENDORS)})[A-Za-z0-9]+", expected="LiteRT's name for a chip, like SM8750, MT6991, E9965 or Tensor_G5"
    ),
]
_Version = Annotated[str, TextPattern(pattern=r"[0-9]+(\.[0-9]+)*", expected="numbers joined by dots, such as 2.50")]


class OnnxRuntimeTarget(Spec):
    """The target that runs graphs with ONNX Runtime on the device's CPU."""

    backend: Literal["onnxruntime"]
    """Runs the graphs in ONNX Runtime."""
    execution_provider: Literal["cpu", "xnnpack"]
    """The execution provider for quantized graphs: ONNX Runtime's own for the CPU, or XNNPACK."""


PerformanceMode: TypeAlias = Literal[
    "burst", "balanced", "default", "high_performance", "high_power_saver", "low_balanced", "low_power_saver", "power_saver",
    "extreme_power_saver", "sustained_high_performance",
]  # fmt: skip
"""Values of `htp_performance_mode` in ONNX Runtime's QNN provider; it only warns of any other value."""


class QnnTarget(Spec):
    """The target that runs QNN context binaries on the device's Qualcomm NPU, the HTP (Hexagon tensor processor)."""

    backend: Literal["qnn"]
    """Compiles on this machine with Qualcomm's compiler."""
    htp_arch: HtpArch
    """The architecture of the chip's Hexagon tensor processor (HTP), such as v79."""
    soc_model: int = Field(gt=0)
    """The chip's number in Qualcomm's SDK, above 0."""
    performance_mode: PerformanceMode = "default"
    """The HTP's mode of clocks and voltages in runs, such as burst. Compiled graphs do not depend on it.
    The default is `default`: Qualcomm's libraries choose."""


class AiHubTarget(Spec):
    """A compile target at Qualcomm AI Hub. The service compiles graphs and runs them on the NPU (HTP) of a hosted device."""

    backend: Literal["ai_hub"]
    """Compiles at Qualcomm AI Hub."""
    device: str = Field(min_length=1)
    """The device's name at the service, such as `Samsung Galaxy S25 (Family)`."""
    runtime: Literal["precompiled_qnn_onnx", "qnn_context_binary"]
    """The format of compiled graphs: a context binary, inside an ONNX model or by itself."""
    qairt_version: _Version | None = None
    """The version of Qualcomm's SDK that compiles graphs, such as 2.50. The default is null: the service chooses."""
    quantize_io: bool = False
    """Compiles quantized graphs with `--quantize_io`: float inputs and outputs become integers. The default is false."""
    timeout_s: float = Field(default=4 * 3600.0, gt=0)
    """The longest time in seconds, above 0, to wait for a job. The default is 14400."""


class LiteRtTarget(Spec):
    """The target that runs graphs with Google's LiteRT on the device's CPU or NPU."""

    backend: Literal["litert"]
    """Compiles on this machine; for an NPU, with its vendor's compiler."""
    soc: _LiteRtSoc | None = None
    """LiteRT's name for the chip, such as SM8750, MT6991, E9965 or Tensor_G5. The default is null: the device's CPU."""

    @property
    def is_for_htp(self) -> bool:
        """Return whether LiteRT runs the target's graphs on a Qualcomm chip's HTP (NPU), not on another chip or a CPU."""
        return self.soc is not None and vendor_of(self.soc) is VENDORS["SM"]


RunTarget: TypeAlias = Annotated[OnnxRuntimeTarget | QnnTarget | AiHubTarget | LiteRtTarget, Field(discriminator="backend")]
"""A target whose compiled graphs the native harness can run on a device."""
Target: TypeAlias = Annotated[
    OnnxRuntimeTarget | QnnTarget | AiHubTarget | LiteRtTarget | ToolchainTarget, Field(discriminator="backend")
]
"""A target that a bundle can be compiled for."""


def target_key(target: Target, machine: str) -> str:
    """Return a target's key, such as `litert-mt6991`. Keys of CPU targets end with `machine`, the device CPU from `uname -m`."""
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
            words = (
                "ai-hub",
                target.device,
                target.runtime,
                target.qairt_version or "",
                "quantize-io" if target.quantize_io else "",
            )
            return re.sub(r"[^a-z0-9.]+", "-", " ".join(words).lower()).strip("-")
        case _:
            assert_never(target)
