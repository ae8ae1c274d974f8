"""Execution provider: a device's target -> the provider that the harness asks ONNX Runtime for; None is the CPU's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quadbench.devices.emulator import HTP_LIBRARY, PLUGIN
from quadbench.target.targets import OnnxRuntimeTarget, QnnTarget, Target


@dataclass(frozen=True, kw_only=True)
class ExecutionProvider:
    """A provider of ONNX Runtime's own, by its name there, or the one of a plugin `library` on the device."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    threads_option: str | None = None  # takes the number of threads
    library: str | None = None
    is_emulator: bool = False

    def planned(self, threads: int) -> dict[str, Any]:
        """Return the provider as the harness's plan has it."""
        counted = {self.threads_option: str(threads)} if self.threads_option else {}
        library = {"library": self.library} if self.library else {}
        return {"name": self.name, "options": {**self.options, **counted}, **library}


XNNPACK = ExecutionProvider(name="XNNPACK", threads_option="intra_op_num_threads")


def execution_provider_of(target: Target, *, is_virtual: bool) -> ExecutionProvider | None:
    """Return the provider that a target's quantized graphs need. Only a virtual device has Qualcomm's, by emulation."""
    match target:
        case OnnxRuntimeTarget(execution_provider="xnnpack"):
            return XNNPACK
        case QnnTarget() if is_virtual:
            chip = {"htp_arch": target.htp_arch.removeprefix("v"), "soc_model": str(target.soc_model)}
            options = {"backend_path": HTP_LIBRARY, **chip}
            return ExecutionProvider(name="QNNExecutionProvider", options=options, library=PLUGIN, is_emulator=True)
        case _:
            return None
