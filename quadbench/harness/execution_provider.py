"""Execution provider: a device's target -> the provider that the harness asks ONNX Runtime for; None is the CPU's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quadbench.devices.emulators import ON_DEVICE as EMULATOR_FOLDER
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

    @property
    def settings(self) -> dict[str, str]:
        """Return what a record says of it: its name and options, and where a plugin's inputs lie."""
        # Memory that the NPU shares would be QnnHtpShared's, but the device of onnxruntime-qnn 2.7.0 offers a program none: asked
        # by OrtEpDevice's memory_info on Linux, x86-64, on 2026-11-25.
        memory = {"provider.lora_memory": "host"} if self.library else {}
        options = {f"provider.{name}": value for name, value in self.options.items()}
        return {"provider": self.name, **options, **memory}


XNNPACK = ExecutionProvider(name="XNNPACK", threads_option="intra_op_num_threads")


def execution_provider_of(target: Target, kit_folder: str | None) -> ExecutionProvider | None:
    """Return the provider that a target's quantized graphs need. `kit_folder` is that of the device's kit.

    Qualcomm's is the kit's, by absolute paths, as a system may have older libraries of the same names. A device without a kit is
    a virtual one, and has it by emulation.
    """
    match target:
        case OnnxRuntimeTarget(execution_provider="xnnpack"):
            return XNNPACK
        case QnnTarget():
            folder = kit_folder or EMULATOR_FOLDER
            chip = {
                "htp_arch": target.htp_arch.removeprefix("v"),
                "soc_model": str(target.soc_model),
                "htp_performance_mode": target.performance_mode,
            }
            return ExecutionProvider(
                name="QNNExecutionProvider",
                options={"backend_path": f"{folder}/libQnnHtp.so", **chip},
                library=f"{folder}/libonnxruntime_providers_qnn.so",
                is_emulator=kit_folder is None,
            )
        case _:
            return None
