"""A bundle that is installed on a device, and the JSON plan that the harness runs for a launch (docs/formats.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from quadbench.artifacts import (
    Component,
    Deployment,
    Graph,
    LaunchPlan,
    StoredBundle,
    StoredCompiled,
    TaskAssets,
    TaskItem,
    Variant,
)
from quadbench.artifacts.bundle import MIB, AdapterFile, FileRef
from quadbench.artifacts.kit import Kit, Library
from quadbench.artifacts.run_record import BASE_UNET, adapters_of, components_of, mixes_of, tasks_of, unets_of
from quadbench.devices import Device
from quadbench.devices.virtual import EMULATOR_FOLDER
from quadbench.errors import ArtifactError
from quadbench.harness.events import DeployedLibrary
from quadbench.recipe import Runtime
from quadbench.target.targets import OnnxRuntimeTarget, QnnTarget, Target

# Where Qualcomm's phones keep what a skel needs, such as libc++.so.1, as the examples of Qualcomm's SDK set it.
_DSP_FOLDERS = ("/vendor/dsp/cdsp", "/vendor/lib/rfsa/adsp", "/vendor/dsp")
PLAN_SCHEMA_VERSION = 3
REFUSED_EXIT_CODE = 2  # the harness's exit code for a wrong plan, or a wrong file in it


@dataclass(frozen=True, kw_only=True)
class ExecutionProvider:
    """An execution provider of ONNX Runtime. `library` is the device path of its plugin library, or None if it is built in."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    threads_option: str | None = None  # name of the option for the number of threads
    library: str | None = None
    is_emulator: bool = False

    def plan_entry(self, threads: int) -> dict[str, Any]:
        """Return an execution provider's dict for the harness plan: `name`, `options` and, for a plugin, the path `library`."""
        counted = {self.threads_option: str(threads)} if self.threads_option else {}
        library = {"library": self.library} if self.library else {}
        return {"name": self.name, "options": {**self.options, **counted}, **library}

    @property
    def settings(self) -> dict[str, str]:
        """Return a dict for a launch record: an execution provider's name (`provider`) and options (`provider.OPTION`)."""
        # QnnHtpShared memory would be shared with the NPU, but onnxruntime-qnn 2.7.0 offers none to programs (checked with
        # OrtEpDevice's memory_info on Linux, x86-64, on 2026-11-25).
        memory = {"provider.lora_memory": "host"} if self.library else {}
        options = {f"provider.{name}": value for name, value in self.options.items()}
        return {"provider": self.name, **options, **memory}


XNNPACK = ExecutionProvider(name="XNNPACK", threads_option="intra_op_num_threads")


def execution_provider_of(target: Target, kit_folder: str | None) -> ExecutionProvider | None:
    """Return the ExecutionProvider for a compile target's quantized graphs. Return None for the CPU provider and LiteRT.

    Qualcomm's provider is loaded from the kit's folder by absolute paths, because a system may have older libraries of the same
    names. A device without a kit is a virtual one, and uses the emulator's.
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


@dataclass(frozen=True, kw_only=True)
class InstalledKit:
    """The shared libraries of a runtime kit on a device. In `folder`, each library's file name is a symlink to the library."""

    folder: str
    kit: Kit
    libraries: tuple[Library, ...]

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which loader and Qualcomm DSP find libraries: the kit's, then for the DSP the vendor's."""
        return {"LD_LIBRARY_PATH": self.folder, "ADSP_LIBRARY_PATH": ";".join((self.folder, *_DSP_FOLDERS))}

    @property
    def versions(self) -> dict[str, str]:
        """Return a dict for a launch record: `kit` maps to the runtime kit's digest, `kit.LIBRARY` to a library's sha256."""
        return {"kit": self.kit.digest, **{f"kit.{library.name}": library.file.sha256 for library in self.libraries}}


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A bundle installed on one device, with all data for a harness plan except the settings of a single launch.

    `program`, `runtime`, `litert` and `dispatch` are the sha256 of deployed files: the harness, ONNX Runtime's library, LiteRT's,
    and LiteRT's dispatch library for an NPU. With `litert`, that runtime runs the quantized graphs. Without an execution provider
    they run on ONNX Runtime's CPU provider. `libraries` are all libraries that the harness may find on the device.
    """

    device: Device
    bundle: StoredBundle
    compiled: StoredCompiled
    deployment: Deployment
    program: str
    runtime: str
    litert: str | None = None
    dispatch: str | None = None
    kit: InstalledKit | None = None
    execution_provider: ExecutionProvider | None = None
    libraries: tuple[DeployedLibrary, ...] = ()

    @property
    def address(self) -> str:
        return self.device.facts.address

    def path_of_library(self, sha256: str) -> str:
        """Return the device path of the library with hash `sha256`. With a runtime kit, it is a symlink in the kit's folder."""
        if self.kit is None:
            return self.path_of_digest(sha256, "the runtime library")
        name = next(library.name for library in self.kit.libraries if library.file.sha256 == sha256)
        return f"{self.kit.folder}/{name}"

    def path_of(self, file: FileRef) -> str:
        """Return the device path of a file of the bundle; raise ArtifactError if the file was not deployed."""
        return self.path_of_digest(file.sha256, f"'{file.path}'")

    def path_of_digest(self, sha256: str, name: str) -> str:
        """Return the device path of the deployed file with hash `sha256`. If none has it, raise ArtifactError about `name`."""
        objects = self.deployment.objects
        if sha256 not in objects:
            raise ArtifactError(
                f"{name} (sha256 {sha256}) is not among the {len(objects)} deployed files", hint="push the bundle again"
            )
        return objects[sha256]


def harness_plan(installation: Installation, launch: LaunchPlan, *, runtime: Runtime, images: str | None) -> dict[str, Any]:
    """Return a launch's JSON plan as a dict. `images` is the device folder for output images, or None to write no images.

    Raise UnknownNameError for a task that the bundle lacks, ArtifactError for a missing graph, adapter or deployed file.
    """
    bundle, compiled, variant = installation.bundle.artifact, installation.compiled.artifact, launch.variant
    tasks = tasks_of(bundle, launch)
    adapters = adapters_of(bundle, variant, tasks)
    unets = unets_of(bundle, compiled, variant, tasks)
    components = components_of(bundle, compiled, variant)
    encoders = {part.value: graph for part, graph in components.items() if part is Component.TEXT_ENCODER}
    others = {part.value: graph for part, graph in components.items() if part is not Component.TEXT_ENCODER}
    patches = {name: _file(installation, graph.patch) for name, graph in unets.items() if graph.patch}
    unet, merge = unets.get(BASE_UNET), {}
    if unet and unet.merge and unet.data:  # merged-at-load: the plan needs the merge graph
        merge = {"merge": {"graph": _file(installation, unet.merge), "weights": _file(installation, unet.data)}}
    return {
        "schema_version": PLAN_SCHEMA_VERSION,
        "root": installation.deployment.root,
        "variant": variant.value,
        "runtime": _runtime(installation, variant, runtime),
        "components": {"encoders": _files(installation, encoders), **_files(installation, others)},
        "unets": _files(installation, unets),
        **({"patches": patches} if patches else {}),
        "adapters": _files(installation, adapters),
        "mixes": mixes_of(tasks, adapters) if adapters else {},
        **merge,
        "base": None if variant.has_unet_per_task else asdict(bundle.base),
        "tasks": {task.name: _task(installation, task, variant) for task in tasks},
        "sequence": [{"task": b.task, "warmup": b.warmup, "iterations": b.iterations} for b in launch.sequence],
        "images": images,
    }


def _runtime(installation: Installation, variant: Variant, runtime: Runtime) -> dict[str, Any]:
    """Return the harness plan's `runtime` as a dict: library path, threads, cores, memory limits and any execution provider."""
    provider = installation.execution_provider if variant.is_quantized else None
    litert, dispatch = (installation.litert, installation.dispatch) if variant.is_quantized else (None, None)
    return {
        **({"engine": "litert"} if litert else {}),
        "library": installation.path_of_library(litert or installation.runtime),
        **({"dispatch": installation.path_of_library(dispatch)} if dispatch else {}),
        "intra_op_threads": runtime.threads,
        "cores": list(runtime.cores),
        "thread_pool": runtime.thread_pool,
        "arena": runtime.arena,
        "preload": runtime.preload,
        "adapter_cache_bytes": runtime.adapter_cache_mb * MIB,
        "memory_budget_bytes": runtime.memory_budget_mb * MIB if runtime.memory_budget_mb else None,
        **({"execution_provider": provider.plan_entry(runtime.threads)} if provider else {}),
    }


def _files(installation: Installation, parts: Mapping[str, Graph | AdapterFile]) -> dict[str, dict[str, str]]:
    return {name: _file(installation, part.file) for name, part in parts.items()}


def _file(installation: Installation, file: FileRef) -> dict[str, str]:
    return {"path": installation.path_of(file), "sha256": file.sha256}


def _task(installation: Installation, task: TaskAssets, variant: Variant) -> dict[str, Any]:
    return {
        "kind": task.kind.value,
        "unet": task.name if variant.has_unet_per_task else BASE_UNET,
        "adapter": None if variant.has_unet_per_task else task.adapter,
        "guidance": task.guidance,
        "table": installation.path_of(task.table),
        "tensors": installation.path_of(task.tensors),
        "items": [_item(installation, item) for item in task.items],
    }


def _item(installation: Installation, item: TaskItem) -> dict[str, Any]:
    def path_of(file: FileRef | None) -> str | None:
        return installation.path_of(file) if file else None

    return {
        "name": item.name,
        "image": path_of(item.image),
        "mask": path_of(item.mask),
        "blend": path_of(item.blend),
        "tokens": _ids(item.tokens),
        "negative_tokens": None if item.negative_tokens is None else _ids(item.negative_tokens),
    }


def _ids(tokens: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    return {name: list(ids) for name, ids in tokens.items()}
