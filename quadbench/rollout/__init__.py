"""Rollout: a bundle and connected devices -> the bundle compiled for each target, once, and installed on every device."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain

from quadbench.artifacts import Bundle, CompiledBundle, Deployment, Stored
from quadbench.compile import compile_bundle
from quadbench.deploy import LocalFile, deploy
from quadbench.devices import Device
from quadbench.errors import MissingDependencyError, QuadbenchError
from quadbench.harness.execution_provider import ExecutionProvider, execution_provider_of
from quadbench.harness.installation import Installation
from quadbench.harness.program import ensure_harness
from quadbench.harness.runtime import runtime_library
from quadbench.observer import Observer
from quadbench.results.layout import Layout
from quadbench.rollout.push_set import local_file, push_set
from quadbench.target.targets import RunTarget, Target, target_key

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The devices on which the bundle is installed, and by address why it is not on the others."""

    installations: tuple[Installation, ...]
    failures: dict[str, QuadbenchError]

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """Return what was pushed to each device."""
        return tuple(installation.deployment for installation in self.installations)


def roll_out(
    bundle: Stored[Bundle], devices: Sequence[Device], *, layout: Layout, observer: Observer, runs_float: bool = True
) -> Rollout:
    """Compile, then push to all devices at once. A device that fails is left out; the others go on.

    Unless the float graph shall run there, what it takes, adapters in float among it, is not sent.

    Raises:
        QuadbenchError: the harness or a graph cannot be built, or every device failed: then the first one's error.
    """
    observer.step("harness", "")
    for device in devices:
        _refuse_foreign_machine(device)
    harness = local_file(ensure_harness(layout.programs), executable=True)
    runtime = local_file(runtime_library())
    compiled = _compiled(bundle, devices, layout, observer)
    installed = partial(Installation, bundle=bundle, program=harness.sha256, runtime=runtime.sha256)
    installations, failures = [], {}
    with ThreadPoolExecutor(max_workers=len(devices)) as pool:
        pushes = [
            pool.submit(_push, device, push_set([harness], [runtime], product, bundle, runs_float=runs_float), observer)
            for device, product in zip(devices, compiled, strict=True)
        ]
    for device, product, push in zip(devices, compiled, pushes, strict=True):
        try:
            deployment = push.result()
        except QuadbenchError as error:
            log.info("%s is left out: %s", device.facts.address, error)
            failures[device.facts.address] = error
            continue
        installations.append(
            installed(device=device, compiled=product, deployment=deployment, execution_provider=_provider(device))
        )
    if not installations:
        raise next(iter(failures.values()))
    return Rollout(installations=tuple(installations), failures=failures)


def compile_for(
    bundle: Stored[Bundle], target: Target, key: str, htp_arch: str | None, *, layout: Layout, observer: Observer
) -> Stored[CompiledBundle]:
    """Compile a bundle for one target, and tell the observer how it goes.

    Raises:
        BuildError: the target cannot be compiled for here, the linter found errors, or a graph was refused.
        ArtifactError: the product is there but damaged.
    """

    def notify(graph: str) -> None:
        observer.step("compile", f"{key}: {graph}")

    compiled = compile_bundle(bundle, target, key, layout, htp_arch=htp_arch, notify=notify)
    if compiled.is_reused:
        observer.reused(f"compiled for {key}", compiled.artifact.digest)
    return compiled


def _compiled(
    bundle: Stored[Bundle], devices: Sequence[Device], layout: Layout, observer: Observer
) -> list[Stored[CompiledBundle]]:
    """Return what each device runs; devices with the same target share one.

    What the least able Qualcomm HTP among them takes, they all take, so the graphs are held to its rules.
    """
    targets = [_run_target(device) for device in devices]
    keys = [target_key(target, _machine(device)) for target, device in zip(targets, devices, strict=True)]
    products: dict[str, Stored[CompiledBundle]] = {}
    for key, target in dict(zip(keys, targets, strict=True)).items():
        archs = (device.profile.soc.htp_arch for device, its in zip(devices, keys, strict=True) if its == key)
        oldest = min(filter(None, archs), default=None)
        products[key] = compile_for(bundle, target, key, oldest, layout=layout, observer=observer)
    return [products[key] for key in keys]


def _push(device: Device, files: Mapping[str, Sequence[LocalFile]], observer: Observer) -> Deployment:
    address = device.facts.address
    deployment = deploy(list(chain(*files.values())), device, progress=lambda sent, total: observer.sent(address, sent, total))
    observer.deployed(deployment)
    return deployment


def _run_target(device: Device) -> RunTarget:
    return device.profile.target if device.family == "adb" else device.profile.virtual_target


def _provider(device: Device) -> ExecutionProvider | None:
    return execution_provider_of(_run_target(device), is_virtual=device.family == "virtual")


def _machine(device: Device) -> str:
    return device.shell(["uname", "-m"], timeout_s=30).stdout.strip()


def _refuse_foreign_machine(device: Device) -> None:
    """Refuse a phone: a rollout takes the harness and the runtime library of this machine."""
    if device.facts.family == "adb" and (machine := _machine(device)) != "x86_64":
        raise MissingDependencyError(
            f"device '{device.facts.address}' is {machine}, and this version runs on x86_64 only",
            hint="docs/phones.md says what works instead; harness and runtime kit for phones can be made, and are not pushed yet",
        )
