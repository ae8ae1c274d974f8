"""Test one device step by step, from its first shell command to a graph on its NPU."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from quadbench.artifacts import MIB, Bundle, LaunchPlan, RunRecord, Status, Variant
from quadbench.artifacts.run_record import LIBRARY_PREFIX, SequenceBlock
from quadbench.artifacts.safe_text import one_line
from quadbench.compile.availability import availability
from quadbench.deploy import deploy
from quadbench.devices import Device, list_devices
from quadbench.devices.addresses import Address, AttachedAddress
from quadbench.devices.connections import SERIAL_VARIABLE, connect
from quadbench.devices.lab.held import leased
from quadbench.doctor.checks import BringUp, DeviceCheck, ExaminedDevice, PlannedCheck, Result, failed, skipped, unknown
from quadbench.doctor.first_contact import advice
from quadbench.errors import DeviceError, DeviceNotFoundError, LeaseError, MissingDependencyError, QuadbenchError, UserError
from quadbench.harness.installation import Installation
from quadbench.harness.program import ensure_harness
from quadbench.harness.runtime_library import runtime_library
from quadbench.measure.gate import DeviceState, read_state
from quadbench.measure.launch import SPACE_BYTES, measure_launch
from quadbench.measure.launch_record import LaunchSettings
from quadbench.observer import Observer
from quadbench.recipe.settings import Gate, Runtime
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.rollout import compile_for, install
from quadbench.rollout.equipment import DeviceKind, device_kind, kit_for, local_file
from quadbench.rollout.forecast import kind_at
from quadbench.spec import variable
from quadbench.target.targets import AiHubTarget, OnnxRuntimeTarget, QnnTarget, RunTarget, target_key

_TIMEOUT_S = 20.0
_PROPERTIES = {  # these identify the device's system and driver versions
    "Android": "ro.build.version.release",
    "security patch": "ro.build.version.security_patch",
    "vendor": "ro.vendor.build.fingerprint",
    "platform": "ro.board.platform",
}

_PUSHED_BYTES = 4 * MIB
# Each command must fail: $1 is a folder that does not exist.
_FAILING = ('chmod 755 "$1/a"', 'mkdir "$1/a/b"', 'mv "$1/a" "$1/b"', 'rm "$1/a"', 'sha256sum "$1/a"', 'stat "$1/a"')
_TOOLS = tuple(command.split()[0] for command in _FAILING)
_FAIL = "\n".join(("exec 2>/dev/null", *(f"{command}; echo {command.split()[0]} $?" for command in _FAILING), "exit 0"))
_UNKNOWN_HINT = "records mark this value as unavailable; quadbench omits figures that need it"
_LIAR_HINT = "mention it in a bug report; quadbench checks pushed files by sha256, so figures stay right"

_RUN_ID = "probe"
_FLOAT_CHECK = "float graph on the CPU"
_GRAPHS_TIMEOUT_S = 30.0
_LAUNCH_TIMEOUT_S = 60.0
_FLOAT_DIFFERENCE, _QUANTIZED_DIFFERENCE = 1, 4  # in steps of 1/255; without the LoRA the image differs by 149
_CPU = OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu")
_ANY_STATE = Gate(  # no figure is published from these launches
    max_thermal_status=6, allows_throttled=True, min_battery_percent=0.0, max_busy_percent=100.0, min_free_mb=0, wait_s=0.0
)

PROBE_FOLDER = Path(__file__).parent / "probe"
PROBE = "probe"
"""Name of the probe bundle's task and of its adapter."""
PROBE_ITEM = "000"


class Witness:
    """Sees a device while it is tried. This one only looks on; subclasses keep what they see."""

    iterations = 1
    """Images of each launch. A witness that needs time to see a launch asks for more."""

    def attending(self, device: Device) -> AbstractContextManager[object]:
        """Return a context manager within which all checks run."""
        return nullcontext()

    def launched(self, check: str, record: RunRecord, folder: Path) -> None:
        """Take note of a launch that has ended. `folder` has its plan and events until the next launch of the same variant."""


def bring_up(address: Address, *, layout: Layout, observer: Observer, witness: Witness | None = None) -> BringUp:
    """Run all checks on a device, even after a failed check. Return the results with serials and home folder paths masked.

    A `witness` sees the connected device, and each launch.

    Raises:
        UserError: files cannot be pushed to this address, or its profile is wrong.
        LeaseError: another job holds the device's lease; nothing was tried.
    """
    started_at = datetime.now(UTC)
    try:
        with connect([address], layout=layout) as devices, leased(devices, layout, "doctor", to_examine=True):
            (device,) = devices
            facts, serials = device.facts, [device.serial] if device.family == "adb" else []
            examined = ExaminedDevice(
                family=facts.family,
                title=facts.title,
                profile=facts.profile,
                abi=device.abi,
                cpu=facts.cpu,
                android_release=facts.android_release,
                fingerprint=facts.fingerprint,
            )
            witness = witness or Witness()
            with witness.attending(device):
                checks = _run_checks(device, layout, observer, witness)
    except LeaseError:
        raise  # its message names a person, so it is not part of the document
    except (DeviceError, MissingDependencyError) as error:
        named = address.serial if isinstance(address, AttachedAddress) else None
        attached = [row.serial for row in list_devices() if row.is_phone]  # serials that a message may contain
        examined, serials = None, [*attached, *filter(None, (named, variable(SERIAL_VARIABLE)))]
        is_unseen = isinstance(address, AttachedAddress) and isinstance(error, DeviceNotFoundError) and not attached
        hint = "; ".join(filter(None, (error.hint, advice(_manufacturer(address)) if is_unseen else None)))
        checks = [
            DeviceCheck(name="connection", **vars(failed(error.message, hint or None))),
            *(check.run(observer) for check in _without_device(address, layout, observer)),
        ]
    return BringUp(
        quadbench=version("quadbench"),
        started_at=started_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        address=address.text,
        device=examined,
        checks=tuple(checks),
    ).impersonal(serials)


def _run_checks(device: Device, layout: Layout, observer: Observer, witness: Witness) -> list[DeviceCheck]:
    """Run all checks on a connected device, from the connection to test graphs. Return a DeviceCheck for each check."""

    def system() -> Result:
        kernel, properties = device.shell(["uname", "-r"], _TIMEOUT_S).stdout, device.properties()
        read = {"kernel": one_line(kernel) or "unknown"}
        read |= {name: one_line(properties[key]) for name, key in _PROPERTIES.items() if properties.get(key)}
        return Result(said=", ".join(f"{name} {text}" for name, text in read.items()), versions=read)

    state = cache(lambda: read_state(device))
    checks = (
        PlannedCheck(name="connection", act=lambda: Result(said=f"{device.facts.title}, {device.abi}")),
        PlannedCheck(name="system", act=system),
        PlannedCheck(name="commands", act=lambda: _commands(device)),
        PlannedCheck(name="exit codes of tools", act=lambda: _exit_codes(device)),
        PlannedCheck(name="commands that outlive a connection", act=lambda: _detached(device)),
        PlannedCheck(name="free space", act=lambda: _free_space(device)),
        PlannedCheck(name="push", act=lambda: _push(device)),
        PlannedCheck(name="thermal status", act=lambda: _thermal(state())),
        PlannedCheck(name="battery", act=lambda: _battery(state())),
        PlannedCheck(name="CPU frequency", act=lambda: _clocks(state())),
        PlannedCheck(name="memory", act=lambda: _memory(state())),
        *_graph_checks(device, layout, observer, witness),
    )
    return [check.run(observer) for check in checks]


def _manufacturer(address: Address) -> str | None:
    """Return the manufacturer in the device profile that an address names. Return None if it names no valid profile."""
    try:
        return kind_at(address).profile.properties.get("ro.product.manufacturer")
    except UserError:
        return None


def _without_device(address: Address, layout: Layout, observer: Observer) -> Iterator[PlannedCheck]:
    """Yield checks of native program, runtime libraries and compiler for an address. Yield none if it has no device profile.

    Kit and compiler are tried for the address's own target, which they have to fit, and for the profile's NPU.
    """
    try:
        kind = kind_at(address)
    except UserError:
        return
    npu = [replace(kind, target=target) for target in kind.profile.targets() if isinstance(target, QnnTarget)]
    kinds = list({one.key: one for one in (kind, *npu)}.values())

    def harness() -> Result:
        program = ensure_harness(layout.programs, kind.abi)
        return Result(said=f"built for {kind.abi}, {program.stat().st_size / MIB:.1f} MB")

    def kit(kind: DeviceKind) -> Result:
        choice = kit_for(kind, layout)
        return Result(said=f"kit {choice.kit.artifact.digest[:12]}" if choice else "this machine's own libraries")

    def compiler(kind: DeviceKind) -> Result:
        state = availability(kind.target)
        if not state.is_ready:
            raise MissingDependencyError(f"compiling needs {state.missing}", hint=state.hint)
        bundle, htp_arch = read_manifest(PROBE_FOLDER, Bundle), kind.profile.soc.htp_arch
        compiled = compile_for(bundle, kind.target, kind.key, htp_arch, layout=layout, observer=observer)
        count = len(compiled.artifact.graphs)
        return Result(
            said=f"{count} graphs of the probe compiled by {' '.join(filter(None, (kind.target.backend, state.version)))}"
        )

    def for_all(act: Callable[[DeviceKind], Result]) -> Result:
        """Act for the address's own target, then for the others, whose errors are told in the result's words alone."""
        own = act(kinds[0])
        words, hints = [f"{kinds[0].key}: {own.said}"], [own.hint]
        for one in kinds[1:]:
            try:
                words.append(f"{one.key}: {act(one).said}")
            except QuadbenchError as error:
                words.append(f"{one.key}: not ready, {one_line(error.message)}")
                hints.append(error.hint)
        return replace(own, said="; ".join(words), hint="; ".join(filter(None, hints)) or None)

    yield PlannedCheck(name="harness", act=harness)
    yield PlannedCheck(name="runtime kit", act=partial(for_all, kit))
    yield PlannedCheck(name="compiler", act=partial(for_all, compiler))


def _commands(device: Device) -> Result:
    began = time.monotonic()
    result = device.shell(["sh", "-c", "echo out; echo err >&2; exit 7"], _TIMEOUT_S)
    ended = (result.exit_code, result.stdout, result.stderr)
    if ended != (7, "out\n", "err\n"):
        return failed(f"a command ended with {ended}; expected {(7, 'out', 'err')}", "try another adb version and another cable")
    return Result(said=f"output and exit codes arrive within {time.monotonic() - began:.2f} s")


def _exit_codes(device: Device) -> Result:
    nowhere = f"{device.root}/no-such-folder"
    codes = dict(
        re.findall(r"^(\w+) (\d{1,3})$", device.shell(["sh", "-c", _FAIL, "sh", nowhere], _TIMEOUT_S).stdout, re.MULTILINE)
    )
    liars = [tool for tool in _TOOLS if codes.get(tool) == "0"]
    absent = [tool for tool in _TOOLS if codes.get(tool) in (None, "127")]
    if absent:
        return failed(f"{', '.join(absent)} cannot be run", "mention it in a bug report; a push needs these commands")
    if liars:
        return failed(f"{', '.join(liars)} end with exit code 0 although they failed", _LIAR_HINT)
    return Result(said=f"{', '.join(_TOOLS)} return a nonzero exit code if they fail")


def _detached(device: Device) -> Result:
    with closing(device.stream(["sh", "-c", "echo one; echo two"], _TIMEOUT_S, f"{device.root}/doctor")) as lines:
        output = list(lines)
    device.shell(["rm", "-rf", f"{device.root}/doctor"], _TIMEOUT_S)
    if output != ["one", "two"]:
        return failed(f"a command in its own session printed {output}; expected ['one', 'two']")
    return Result(said="a command runs in its own session, and its output is read from a file")


def _free_space(device: Device) -> Result:
    device.shell(["mkdir", "-p", device.root], _TIMEOUT_S)
    free_bytes = device.free_bytes(device.root)
    message = f"{free_bytes / MIB:.0f} MB free at {device.root}"
    if free_bytes < SPACE_BYTES:
        hint = f"free some space, for example below {device.root}; quadbench sends deleted files again when needed"
        return failed(f"{message}; a launch needs {SPACE_BYTES / MIB:g} MB, and the graphs need more", hint)
    return Result(said=message)


def _push(device: Device) -> Result:
    """Push random bytes to the device as a benchmark run pushes its files. Pull the bytes back and compare them."""
    with TemporaryDirectory() as folder:
        sent, fetched = Path(folder, "sent"), Path(folder, "fetched")
        sent.write_bytes(os.urandom(_PUSHED_BYTES))
        file = local_file(sent)
        deployment = deploy([file], device)
        place = deployment.objects[file.sha256]
        try:
            device.pull(place, fetched)
        finally:
            device.shell(["rm", "-f", place], _TIMEOUT_S)
        if fetched.read_bytes() != sent.read_bytes():
            return failed("the pushed file was changed when it was pulled back", "try another cable or port")
    size_mb, seconds = _PUSHED_BYTES / MIB, deployment.seconds
    return Result(said=f"{size_mb:g} MB pushed and checked in {seconds:.1f} s, and pulled back unchanged")


def _thermal(state: DeviceState) -> Result:
    thermal = state.thermal
    if thermal.status is None:
        return unknown("no measured thermal status", "launches do not wait for the device to cool down")
    return Result(said=f"status {thermal.status} ({thermal.status_name}), {len(thermal.temperatures)} temperatures")


def _battery(state: DeviceState) -> Result:
    if state.battery.level_percent is None:
        return unknown("no battery level", "launches do not wait for the battery")
    return Result(said=f"{state.battery.level_percent:.0f} %")


def _clocks(state: DeviceState) -> Result:
    if not any(clock.khz is not None for clock in state.clocks):
        return unknown("no frequency of any core", _UNKNOWN_HINT)
    return Result(said=", ".join(map(str, state.clocks)))


def _memory(state: DeviceState) -> Result:
    if state.memory_total_bytes is None or state.memory_available_bytes is None:
        return unknown("no memory size", _UNKNOWN_HINT)
    return Result(said=f"{state.memory_available_bytes / MIB:.0f} of {state.memory_total_bytes / MIB:.0f} MB available")


def _graph_checks(device: Device, layout: Layout, observer: Observer, witness: Witness) -> Iterator[PlannedCheck]:
    """Yield checks of the native program, runtime libraries and test graphs: float on the CPU, INT16 with LoRA on each target."""
    own = device_kind(device)

    @cache  # exceptions are not cached, so failures are tried again
    def installed(target: RunTarget) -> Installation:
        kind = replace(device_kind(device), target=target)
        return install(read_manifest(PROBE_FOLDER, Bundle), device, kind, layout=layout, observer=observer)

    def paint(check: str, target: RunTarget, variant: Variant) -> Result:
        if isinstance(target, QnnTarget) and device.family != "adb" and target != own.target:
            return skipped("this address does not emulate an NPU", f"use the address virtual:{device.profile.name}?target=qnn")
        settings = LaunchSettings(
            run_id=_RUN_ID, layout=layout.doctor, runtime=Runtime(threads=1), timeout_s=_LAUNCH_TIMEOUT_S, gate=_ANY_STATE
        )
        block = SequenceBlock(task=PROBE, warmup=0, iterations=witness.iterations)
        launch = LaunchPlan(variant=variant, launch=0, sequence=(block,))
        installation = installed(target)
        record = measure_launch(installation, launch, settings)
        witness.launched(check, record, settings.layout.launch(_RUN_ID, installation.address, variant, launch.launch))
        judged = _probe_outcome(record, _QUANTIZED_DIFFERENCE if variant.is_quantized else _FLOAT_DIFFERENCE)
        return replace(judged, versions=record.versions | record.settings)

    yield PlannedCheck(name="harness", act=lambda: _harness(device, layout))
    yield PlannedCheck(name="runtime kit", act=lambda: _kit(own, layout))
    yield PlannedCheck(name=_FLOAT_CHECK, act=lambda: paint(_FLOAT_CHECK, _CPU, Variant.FLOAT))
    npu = (target for target in device.profile.targets() if isinstance(target, QnnTarget))
    targets = (target for target in (_CPU, own.target, *npu) if not isinstance(target, AiHubTarget))
    for target in dict.fromkeys(targets):
        name = f"INT16 LoRA on {target_key(target, own.abi.traits.machine)}"
        yield PlannedCheck(name=name, act=partial(paint, name, target, Variant.SHARED))


def _harness(device: Device, layout: Layout) -> Result:
    try:
        program = local_file(ensure_harness(layout.programs, device.abi), executable=True)
    except MissingDependencyError as error:
        return failed(error.message, error.hint)
    place = deploy([program], device).objects[program.sha256]
    result = device.shell([place, "--version"], _GRAPHS_TIMEOUT_S)
    if result.exit_code:
        return failed(f"the harness ended with exit code {result.exit_code}: {result.stderr}", f"check that it runs {device.abi}")
    return Result(said=f"{result.stdout.strip()}, {program.size_bytes / MIB:.1f} MB for {device.abi}")


def _kit(own: DeviceKind, layout: Layout) -> Result:
    try:
        choice = kit_for(own, layout)
    except MissingDependencyError as error:
        return failed(error.message, error.hint)
    if choice is None:
        return Result(said=f"not needed: the device has this machine's ABI and uses its {runtime_library().name}")
    kit = choice.kit.artifact
    versions = ", ".join(f"{name} {text}" for name, text in kit.versions.items())
    return Result(said=f"{kit.digest[:12]} with {versions}; pushed: {', '.join(library.name for library in choice.libraries)}")


def _probe_outcome(record: RunRecord, most: int) -> Result:
    if record.status is not Status.OK:
        return failed(record.reason or f"the launch is {record.status}", "see docs/troubleshooting.md for this message")
    difference = max(sample.value for sample in record.samples if sample.metric == "max_abs_difference")
    if difference > most:
        return failed(
            f"the image differs from the known one by {difference:.0f}/255; expected at most {most}/255",
            "use no figure from this device until the cause is known: its graphs compute something else",
        )
    libraries = sum(name.startswith(LIBRARY_PREFIX) for name in record.versions)
    version = record.versions.get("runtime", "unknown")
    runtime = version if record.settings.get("engine") else f"ONNX Runtime {version}"
    return Result(said=f"the image is the known one within {difference:.0f}/255; {runtime}, {libraries} libraries loaded")
