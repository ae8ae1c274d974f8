"""Install bundles on devices: compile each bundle once per target, then push it to every device.

equipment.py  a device's ABI, target, harness and runtime kit; files to push
forecast.py   dry run: builds, push sizes, launches and obstacles, without connecting
recovery.py   wait for a lost device; is it the same phone
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from quadbench.artifacts import Deployment, StoredBundle, StoredCompiled
from quadbench.artifacts.kit import Kit, Library, Role, role_of
from quadbench.artifacts.run_record import harness_files
from quadbench.compile import compile_bundle
from quadbench.deploy import LocalFile, deploy
from quadbench.devices import Device
from quadbench.devices.virtual import emulator_libraries
from quadbench.errors import ArtifactError, DeviceError, QuadbenchError
from quadbench.harness.events import DeployedLibrary
from quadbench.harness.installation import Installation, InstalledKit, execution_provider_of
from quadbench.harness.program import check_harness, ensure_harness
from quadbench.kits.elf import read_elf
from quadbench.observer import Observer
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents
from quadbench.rollout import equipment
from quadbench.rollout.recovery import Recovery
from quadbench.target.targets import Target

OmittedDevices = Callable[[Device, QuadbenchError], None]
Install = Callable[[], Installation]
_LINK_TIMEOUT_S = 30.0
# $1 is the kit's folder; then pairs of library name and sha256. Android allows no hard links.
_LINK = """\
mkdir -p "$1" && cd "$1" || exit
shift
while [ $# -gt 0 ]; do
  ln -sf "../../objects/$2" "$1" || exit
  shift 2
done
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A rollout's result. `failures` maps address to error, `reinstall` maps address to a function `() -> Installation`."""

    installations: tuple[Installation, ...] = ()
    failures: dict[str, QuadbenchError] = field(default_factory=dict)
    reinstall: dict[str, Install] = field(default_factory=dict)

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """Return a tuple of one Deployment (the files on a device after the push) per device whose installation succeeded."""
        return tuple(installation.deployment for installation in self.installations)


def roll_out(
    bundles: Sequence[StoredBundle],
    devices: Sequence[Device],
    *,
    layout: Layout,
    observer: Observer,
    runs_float: bool = True,
    overrides: equipment.Overrides = equipment.NO_OVERRIDES,
    left_out: OmittedDevices | None = None,
    recovery: Recovery | None = None,
) -> Rollout:
    """Compile a bundle for each device, then push to all in parallel. Return a Rollout: installations and errors by device.

    Unless `runs_float`, the float graphs and float adapters are not sent. With a `recovery`, a lost device is waited for.

    Raises:
        UserError: the given harness is not an executable file, or a device cannot start it.
        UnknownNameError: no kit, or more than one, has a digest with the given prefix.
        MissingDependencyError: a device's harness or kit is missing; nothing was pushed.
        ArtifactError: a file of the bundle or compiled bundle is damaged; nothing was pushed.
        QuadbenchError: the harness or a graph cannot be built, or every device failed: then the first one's error.
    """
    observer.stage_step("harness", "")
    kinds = [equipment.device_kind(device) for device in devices]
    choices = [equipment.select_kit(kind, layout, overrides) for kind in kinds]
    abis = {device.abi for device in devices}
    programs = {
        abi: check_harness(overrides.harness, abi) if overrides.harness else ensure_harness(layout.programs, abi) for abi in abis
    }
    harnesses = {abi: equipment.local_file(program, executable=True) for abi, program in programs.items()}
    compiled = _compile_all(bundles, kinds, overrides, layout, observer)
    for bundle in {bundle.folder: bundle for bundle in bundles}.values():  # a device may have the files already
        check_contents(bundle, harness_files(bundle.artifact, runs_float=runs_float))
    work = [
        _DeviceInstall(device=device, kind=kind, harness=harnesses[device.abi], choice=choice, bundle=bundle, compiled=product)
        for device, kind, choice, bundle, product in zip(devices, kinds, choices, bundles, compiled, strict=True)
    ]
    return _push_all(work, [partial(one.install, observer, runs_float=runs_float) for one in work], left_out, recovery)


def _push_all(
    work: Sequence["_DeviceInstall"], acts: Sequence[Install], left_out: OmittedDevices | None, recovery: Recovery | None
) -> Rollout:
    installations, failures = [], {}
    again = {one.device.facts.address: act for one, act in zip(work, acts, strict=True)}
    with ThreadPoolExecutor(max_workers=len(work)) as pool, _closed_on_interrupt(work, recovery):
        pending = [
            pool.submit(recovery.retry, one.device, act) if recovery else pool.submit(act)
            for one, act in zip(work, acts, strict=True)
        ]
        wait(pending)
    for one, installed in zip(work, pending, strict=True):
        address = one.device.facts.address
        try:
            installations.append(installed.result())
        except QuadbenchError as error:
            log.info("%s is left out: %s", address, error)
            failures[address] = error
            if left_out:
                left_out(one.device, error)
    if not installations:
        raise next(iter(failures.values()))
    return Rollout(installations=tuple(installations), failures=failures, reinstall=again)


@contextmanager
def _closed_on_interrupt(work: Sequence["_DeviceInstall"], recovery: Recovery | None) -> Iterator[None]:
    """Close all devices if Ctrl-C interrupts a `with` block. An open device would continue its push until all bytes are sent."""
    try:
        yield
    except KeyboardInterrupt:
        if recovery:
            recovery.stop.cut_off()
        for one in work:
            one.device.close()
        raise


def compile_for(
    bundle: StoredBundle, target: Target, key: str, htp_arch: str | None, *, layout: Layout, observer: Observer
) -> StoredCompiled:
    """Return a bundle compiled for one target. Reuse a stored compiled bundle if there is one. Report progress to `observer`.

    Raises:
        BuildError: the target cannot be compiled for here, the linter found errors, or a graph was refused.
        ArtifactError: an existing compiled bundle is damaged.
    """

    def notify(graph: str) -> None:
        observer.stage_step("compile", f"{key}: {graph}")

    compiled = compile_bundle(bundle, target, key, layout, htp_arch=htp_arch, notify=notify)
    if compiled.is_reused:
        observer.artifact_reused(f"compiled for {key}", compiled.artifact.digest)
    return compiled


def install(
    bundle: StoredBundle, device: Device, kind: equipment.DeviceKind, *, layout: Layout, observer: Observer
) -> Installation:
    """Compile a bundle for one device and push it. Keep other bundles on the device. Return an Installation.

    Raises:
        MissingDependencyError: the harness or a kit is missing; nothing was pushed.
        QuadbenchError: the harness or a graph cannot be built, or the device fails.
    """
    choice, program = equipment.kit_for(kind, layout), ensure_harness(layout.programs, kind.abi)
    return _DeviceInstall(
        device=device,
        kind=kind,
        harness=equipment.local_file(program, executable=True),
        choice=choice,
        bundle=bundle,
        compiled=compile_for(bundle, kind.target, kind.key, kind.profile.soc.htp_arch, layout=layout, observer=observer),
    ).install(observer, runs_float=True)


def _compile_all(
    bundles: Sequence[StoredBundle],
    kinds: Sequence[equipment.DeviceKind],
    overrides: equipment.Overrides,
    layout: Layout,
    observer: Observer,
) -> list[StoredCompiled]:
    """Return a list with each device's compiled bundle. Compile a bundle once for all devices with the same compile target."""
    products = dict(overrides.compiled)
    for bundle, kind in zip(bundles, kinds, strict=True):
        what = (bundle.artifact.digest, kind.key)
        if what not in products:
            # Lint for the oldest HTP version among these devices, so that all of them can run the graphs.
            oldest = min(
                (arch for other in kinds if other.key == kind.key and (arch := other.profile.soc.htp_arch)), default=None
            )
            products[what] = compile_for(bundle, kind.target, kind.key, oldest, layout=layout, observer=observer)
    return [products[bundle.artifact.digest, kind.key] for bundle, kind in zip(bundles, kinds, strict=True)]


@dataclass(frozen=True, kw_only=True)
class _DeviceInstall:
    """The files to push to one device. `choice` has the runtime kit; None means that the host's runtime libraries are pushed."""

    device: Device
    kind: equipment.DeviceKind
    harness: LocalFile
    choice: equipment.KitChoice | None
    bundle: StoredBundle
    compiled: StoredCompiled

    def install(self, observer: Observer, *, runs_float: bool) -> Installation:
        """Push the files of bundle, harness and runtime libraries that the device lacks. Return an Installation."""
        address, choice = self.device.facts.address, self.choice
        libraries = choice.files if choice else equipment.host_libraries(self.kind.target)
        names = [library.name for library in choice.libraries] if choice else [file.path.name for file in libraries]
        files = chain(*equipment.push_set([self.harness], libraries, self.compiled, self.bundle, runs_float=runs_float).values())
        deployment = deploy(list(files), self.device, progress=lambda sent, total: observer.bytes_sent(address, sent, total))
        kit = name_libraries(self.device, choice.kit.artifact, choice.libraries) if choice else None
        observer.deploy_done(deployment)
        by_role = {role_of(name): file.sha256 for name, file in zip(names, libraries, strict=True)}
        provider = execution_provider_of(self.kind.target, kit.folder if kit else None)
        is_emulated = provider is not None and provider.is_emulator
        return Installation(
            device=self.device,
            bundle=self.bundle,
            compiled=self.compiled,
            deployment=deployment,
            program=self.harness.sha256,
            runtime=by_role[Role.RUNTIME],
            litert=by_role.get(Role.LITERT),
            dispatch=by_role.get(Role.DISPATCH),
            kit=kit,
            execution_provider=provider,
            libraries=tuple(deployed_libraries(names, libraries, deployment, kit, is_emulated=is_emulated)),
        )


def name_libraries(device: Device, kit: Kit, libraries: Sequence[Library]) -> InstalledKit:
    """Create a folder on the device for a runtime kit. Link each library's name to its pushed file. Return an InstalledKit."""
    folder = f"{device.root}/kits/{kit.digest}"
    words = [word for library in libraries for word in (library.name, library.file.sha256)]
    result = device.shell(["sh", "-c", _LINK, "sh", folder, *words], _LINK_TIMEOUT_S)
    if result.exit_code:
        message = " / ".join(result.stderr.splitlines()[-3:]) or "nothing on stderr"
        raise DeviceError(f"'{folder}' cannot be created on device '{device.facts.address}': {message}")
    return InstalledKit(folder=folder, kit=kit, libraries=tuple(libraries))


def deployed_libraries(
    names: Sequence[str], files: Sequence[LocalFile], deployment: Deployment, kit: InstalledKit | None, *, is_emulated: bool
) -> Iterator[DeployedLibrary]:
    """Yield the name and device path of each pushed library. If `is_emulated`, also yield Qualcomm's HTP emulator libraries."""
    objects = [deployment.objects[file.sha256] for file in files]
    for file, name, place in zip(files, names, objects, strict=True):
        paths = (f"{kit.folder}/{name}", place) if kit else (place,)
        yield _deployed_library(name, paths, file.path)
    for path, local in emulator_libraries().items() if is_emulated else ():
        if role_of(local.name) is not Role.SUPPORT:
            yield _deployed_library(local.name, (path,), local)


def _deployed_library(name: str, paths: tuple[str, ...], local: Path) -> DeployedLibrary:
    return DeployedLibrary(name=name, paths=paths, build_id=read_elf(local, name=name, fault=ArtifactError).build_id)
