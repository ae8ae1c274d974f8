"""System: a device -> checks of what any run needs of it: commands, files, space, and its state."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from quadbench.artifacts import MIB
from quadbench.deploy import deploy
from quadbench.devices import Device
from quadbench.doctor.checks import Answer, PlannedCheck, failed, not_told
from quadbench.measure.gate import DeviceState, read_state
from quadbench.measure.launch import SPACE_BYTES
from quadbench.results.digests import sha256_of
from quadbench.rollout.equipment import local_file

_TIMEOUT_S = 20.0
_PUSHED_BYTES = 4 * MIB
_TOOLS = ("chmod", "mkdir", "mv", "rm", "sha256sum", "stat")
# Each does what must fail: $1 is a path below which there is nothing.
_FAIL = """\
exec 2>/dev/null
chmod 755 "$1/a"; echo "chmod $?"
mkdir "$1/a/b"; echo "mkdir $?"
mv "$1/a" "$1/b"; echo "mv $?"
rm "$1/a"; echo "rm $?"
sha256sum "$1/a"; echo "sha256sum $?"
stat "$1/a"; echo "stat $?"
exit 0
"""
_NOT_TOLD_HINT = "records say unavailable, and what quadbench makes of it is left out"
_LIAR_HINT = "what is pushed is compared by its content, so figures stay right; name it in a bug report"


def system_checks(device: Device) -> Iterator[PlannedCheck]:
    """Yield the checks, in the order in which a run would need what they are about."""
    yield PlannedCheck(name="commands", act=lambda: _commands(device))
    yield PlannedCheck(name="exit codes of tools", act=lambda: _exit_codes(device))
    yield PlannedCheck(name="commands that outlive a connection", act=lambda: _detached(device))
    yield PlannedCheck(name="free space", act=lambda: _free_space(device))
    yield PlannedCheck(name="push", act=lambda: _push(device))
    state = cache(lambda: read_state(device))
    yield PlannedCheck(name="thermal status", act=lambda: _thermal(state()))
    yield PlannedCheck(name="battery", act=lambda: _battery(state()))
    yield PlannedCheck(name="CPU frequency", act=lambda: _clocks(state()))
    yield PlannedCheck(name="memory", act=lambda: _memory(state()))


def _commands(device: Device) -> Answer:
    began = time.monotonic()
    result = device.shell(["sh", "-c", "echo out; echo err >&2; exit 7"], _TIMEOUT_S)
    ended = (result.exit_code, result.stdout, result.stderr)
    if ended != (7, "out\n", "err\n"):
        return failed(f"a command ended with {ended}; expected {(7, 'out', 'err')}", "try another adb, and another cable")
    return Answer(said=f"output and exit codes arrive, in {time.monotonic() - began:.2f} s")


def _exit_codes(device: Device) -> Answer:
    nowhere = f"{device.root}/no-such-folder"
    codes = dict(
        re.findall(r"^(\w+) (\d{1,3})$", device.shell(["sh", "-c", _FAIL, "sh", nowhere], _TIMEOUT_S).stdout, re.MULTILINE)
    )
    liars = [tool for tool in _TOOLS if codes.get(tool) == "0"]
    absent = [tool for tool in _TOOLS if codes.get(tool) in (None, "127")]
    if absent:
        return failed(f"{', '.join(absent)} cannot be run", "the device's shell lacks what a push needs; name it in a bug report")
    if liars:
        return failed(f"{', '.join(liars)} end with exit code 0 although they failed", _LIAR_HINT)
    return Answer(said=f"{', '.join(_TOOLS)} say when they fail")


def _detached(device: Device) -> Answer:
    with closing(device.stream(["sh", "-c", "echo one; echo two"], _TIMEOUT_S, f"{device.root}/doctor")) as lines:
        said = list(lines)
    device.shell(["rm", "-rf", f"{device.root}/doctor"], _TIMEOUT_S)
    if said != ["one", "two"]:
        return failed(f"a command in a session of its own said {said}; expected ['one', 'two']")
    return Answer(said="a command runs in a session of its own, and its output is read from a file")


def _free_space(device: Device) -> Answer:
    device.shell(["mkdir", "-p", device.root], _TIMEOUT_S)
    free_bytes = device.free_bytes(device.root)
    said = f"{free_bytes / MIB:.0f} MB free at {device.root}"
    if free_bytes < SPACE_BYTES:
        hint = f"make room; what lies below {device.root} may be deleted, it is sent again when it is needed"
        return failed(f"{said}; a launch alone needs {SPACE_BYTES / MIB:g} MB, and before it graphs are pushed", hint)
    return Answer(said=said)


def _push(device: Device) -> Answer:
    """Send bytes that the device cannot have yet, by the way that all files go, and fetch them again."""
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
        if sha256_of(fetched) != file.sha256:
            return failed("what was pushed came back changed", "try another cable or port")
    size = f"{_PUSHED_BYTES / MIB:g} MB"
    return Answer(said=f"{size} sent and checked there in {deployment.seconds:.1f} s, and fetched again unchanged")


def _thermal(state: DeviceState) -> Answer:
    thermal = state.thermal
    if thermal.status is None:
        return not_told("no thermal status that was measured", "no launch waits for the device to cool down")
    return Answer(said=f"status {thermal.status} ({thermal.status_name}), {len(thermal.temperatures)} temperatures")


def _battery(state: DeviceState) -> Answer:
    if state.battery.level_percent is None:
        return not_told("no charge of a battery", "no launch waits for the battery")
    return Answer(said=f"{state.battery.level_percent:.0f} %")


def _clocks(state: DeviceState) -> Answer:
    if not any(clock.khz is not None for clock in state.clocks):
        return not_told("no clock of any core", _NOT_TOLD_HINT)
    return Answer(said=", ".join(map(str, state.clocks)))


def _memory(state: DeviceState) -> Answer:
    if state.memory_total_bytes is None or state.memory_available_bytes is None:
        return not_told("no memory", _NOT_TOLD_HINT)
    return Answer(said=f"{state.memory_available_bytes / MIB:.0f} of {state.memory_total_bytes / MIB:.0f} MB available")
