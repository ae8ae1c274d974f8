"""Rollout: a bundle and connected devices -> the bundle compiled for each target, once, and pushed to all devices at once."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts import Bundle, Deployment
from quadbench.compile import Compiled, compile_bundle
from quadbench.deploy import LocalFile, deploy
from quadbench.device_profile import RunTarget, Target, target_key
from quadbench.devices import Device
from quadbench.errors import MissingDependencyError, QuadbenchError
from quadbench.harness import OVERRIDE, ensure_harness, runtime_library
from quadbench.manifest import file_refs, sha256_of
from quadbench.measure.execution_provider import ExecutionProvider, execution_provider_of
from quadbench.observer import Observer
from quadbench.plan import has_references

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What is where, by address; devices that failed are only in `failures`. An execution provider of None is the CPU's."""

    harness: LocalFile
    runtime: LocalFile
    targets: dict[str, str]
    execution_providers: dict[str, ExecutionProvider | None]
    compiled: dict[str, Compiled]
    deployments: dict[str, Deployment]
    failures: dict[str, QuadbenchError]


def roll_out(bundle: Bundle, folder: Path, devices: Sequence[Device], *, results: Path, observer: Observer) -> Rollout:
    """Compile, then push. A device that fails is left out; the others go on.

    Raises:
        QuadbenchError: the harness or a graph cannot be built, or every device failed: then the first one's error.
    """
    observer.step("harness", "")
    for device in devices:
        _refuse_foreign_machine(device)
    harness = _local_file(ensure_harness(results / "harness"), executable=True)
    runtime = _local_file(runtime_library())
    targets = {device.facts.address: _target(device) for device in devices}
    by_key = {
        key: compiled_for(bundle, folder, target, key, _oldest_htp(key, targets, devices), results, observer)
        for target, key in dict.fromkeys(targets.values())
    }
    compiled = {address: by_key[key] for address, (_, key) in targets.items()}
    deployments: dict[str, Deployment] = {}
    failures: dict[str, QuadbenchError] = {}
    with ThreadPoolExecutor(max_workers=len(devices)) as pool:
        files = {address: [*_files(bundle, folder, made), harness, runtime] for address, made in compiled.items()}
        pushes = {device.facts.address: pool.submit(_push, device, files[device.facts.address], observer) for device in devices}
        for address, push in pushes.items():
            try:
                deployments[address] = push.result()
            except QuadbenchError as error:
                log.info("%s is left out: %s", address, error)
                failures[address] = error
    if not deployments:
        raise next(iter(failures.values()))
    return Rollout(
        harness=harness,
        runtime=runtime,
        targets={address: key for address, (_, key) in targets.items()},
        execution_providers={device.facts.address: _execution_provider(device) for device in devices},
        compiled=compiled,
        deployments=deployments,
        failures=failures,
    )


def _push(device: Device, files: Sequence[LocalFile], observer: Observer) -> Deployment:
    address = device.facts.address
    deployment = deploy(files, device, progress=lambda sent, total: observer.sent(address, sent, total))
    observer.deployed(deployment)
    return deployment


def _files(bundle: Bundle, folder: Path, compiled: Compiled) -> Iterator[LocalFile]:
    """What the harness opens: graphs, adapters, tables and inputs; references and truths stay here."""
    runs_float = has_references(bundle)
    floats = [graph for graph in bundle.graphs if runs_float and not graph.variant.is_quantized]
    adapters = [adapter for adapter in bundle.adapters if runs_float or adapter.variant.is_quantized]
    tasks = [(t.table, t.tensors, *((item.image, item.mask) for item in t.items)) for t in bundle.tasks]
    for place, parts in ((compiled.folder, compiled.compiled.graphs), (folder, (*floats, *adapters, *tasks))):
        for file in file_refs(tuple(parts)):
            yield LocalFile(path=place / file.path, sha256=file.sha256, size_bytes=file.size_bytes)


def _local_file(path: Path, *, executable: bool = False) -> LocalFile:
    return LocalFile(path=path, sha256=sha256_of(path), size_bytes=path.stat().st_size, executable=executable)


def compiled_for(
    bundle: Bundle, folder: Path, target: Target, key: str, htp_arch: str | None, results: Path, observer: Observer
) -> Compiled:
    """Compile for one target, telling how it goes. Raises: as `compile_bundle`."""

    def notify(graph: str) -> None:
        observer.step("compile", f"{key}: {graph}")

    made = compile_bundle(bundle, folder, target, key, results / "compiled", htp_arch=htp_arch, notify=notify)
    if made.is_reused:
        observer.reused(f"compiled for {key}", made.compiled.digest)
    return made


def _oldest_htp(key: str, targets: Mapping[str, tuple[Target, str]], devices: Sequence[Device]) -> str | None:
    """The least able Qualcomm HTP, as `v79`, among the devices that share a target: what it takes, they all take."""
    found = (device.profile.soc.htp_arch for device in devices if targets[device.facts.address][1] == key)
    return min(filter(None, found), default=None)


def _target(device: Device) -> tuple[Target, str]:
    """What the device runs, and its name in one word."""
    target = _run_target(device)
    return target, target_key(target, _machine(device))


def _run_target(device: Device) -> RunTarget:
    return device.profile.target if device.family == "adb" else device.profile.virtual_target


def _execution_provider(device: Device) -> ExecutionProvider | None:
    return execution_provider_of(_run_target(device), is_virtual=device.family == "virtual")


def _machine(device: Device) -> str:
    return device.shell(["uname", "-m"], timeout_s=30).stdout.strip()


def _refuse_foreign_machine(device: Device) -> None:
    """The harness and the runtime library are built for this machine; another architecture needs its own."""
    if device.facts.family == "adb" and (machine := _machine(device)) != "x86_64":
        raise MissingDependencyError(
            f"device '{device.facts.address}' is {machine}, and no harness for it is here",
            hint=f"build android_harness with the NDK (its README says how) and set {OVERRIDE} to it; "
            "this version has no ONNX Runtime for Android yet",
        )
