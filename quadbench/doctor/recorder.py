"""Record a session with a device for people who do not have it: its answers, the events of launches, the harness's memory."""

import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from quadbench.artifacts import RunRecord
from quadbench.artifacts.safe_text import one_line
from quadbench.devices import Device
from quadbench.devices.adb_protocol import user_server
from quadbench.devices.addresses import Address
from quadbench.devices.connections import connect
from quadbench.devices.personal_data import PersonalData
from quadbench.devices.recording import (
    MAX_DESCRIPTORS,
    MAX_EVENTS,
    MAX_LAUNCHES,
    MAX_PROPERTIES,
    MAX_TEXT,
    MAX_TREES,
    Descriptor,
    ProcessTree,
    RecordedCheck,
    RecordedLaunch,
    Recording,
    StatePart,
    dma_buffers,
    resident_peak_bytes,
)
from quadbench.doctor.bring_up import Witness, bring_up
from quadbench.doctor.checks import BringUp
from quadbench.errors import ArtifactError, DeviceError, NotStoredError
from quadbench.harness.event_log import EVENTS
from quadbench.measure.gate import state_parts, state_report
from quadbench.observer import Observer
from quadbench.results.layout import Layout, plain_name
from quadbench.results.records import open_records
from quadbench.spec import read_file

_TIMEOUT_S = 30.0
_BETWEEN_S = 0.05  # between two readings of /proc
_ITERATIONS = 3000  # images of a launch of the probe: half a second on a PC, time to read its memory some times
_ADB_WORDS = ("product", "model", "device")  # the others number a port and a connection of this machine
_MARK = "@@quadbench "
_DENIED = f"{_MARK}denied"
_MAX_ALL_EVENTS = 4 * MAX_EVENTS  # of all launches together: half of what a recording may unpack to
_MAX_TOLD = 4000  # characters of one file in /proc; Linux writes hundreds
_COMMON_PARTS = 2  # a home such as /root names no user
_PLAN, _MAX_PLAN_BYTES = "plan.json", 8 * 2**20

# Prints the memory of each process whose program lies below $1. A file that cannot be read is marked. A descriptor that was
# closed meanwhile is left out, and a process that ended has no last line.
_SCRIPT = f"""exec 2>/dev/null
denied() {{ echo; echo '{_DENIED}'; }}
for place in /proc/[0-9]*; do
  case $(readlink $place/exe) in "$1"/*) ;; *) continue ;; esac
  echo "{_MARK}process ${{place##*/}}"
  echo '{_MARK}status'; grep -E '^(State|Threads|Vm|Rss)' $place/status || denied
  echo '{_MARK}smaps_rollup'; cat $place/smaps_rollup || denied
  if ls $place/fd >/dev/null; then
    echo '{_MARK}descriptors'
    for file in $place/fd/*; do
      told=$(cat $place/fdinfo/${{file##*/}}) || told=$(denied)
      named="$(stat -L -c %i $file || echo -) $(readlink $file)"
      [ -L $file ] || continue
      echo "{_MARK}descriptor $named"
      echo "$told"
    done
  fi
  if [ -d $place/fd ]; then echo '{_MARK}whole'; fi
done
exit 0
"""

log = logging.getLogger(__name__)


def record_probe(address: Address, *, layout: Layout, observer: Observer) -> Recording:
    """Try a device as `quadbench doctor --device` does, and return the recording of that session.

    Raises:
        DeviceError, UserError, MissingDependencyError: the device cannot be reached, so there is nothing to record.
    """
    recorder = _Recorder()
    result = bring_up(address, layout=layout, observer=observer, witness=recorder)
    if recorder.device is None:
        first = result.checks[0]
        raise DeviceError(f"nothing was recorded: {first.said}", hint=first.hint)
    return recorder.recording(result)


def record_run(address: Address, run_id: str, *, layout: Layout) -> Recording:
    """Return a recording of a connected device and of the launches that it made in a run, without their memory in /proc.

    Raises:
        DeviceError, UserError, MissingDependencyError: the device cannot be reached.
        NotStoredError: the run has no launch of this device.
    """
    recorder = _Recorder()
    with open_records(layout.database) as stored:
        records = [record for record in stored.run_records(run_id) if record.device.address == address.text]
    if not records:
        raise NotStoredError(f"run '{run_id}' has no launch of '{address}'", hint="see: quadbench runs")
    with connect([address], layout=layout) as [device]:
        recorder.look(device)
        for record in records[:MAX_LAUNCHES]:
            folder = layout.launch(run_id, address.text, record.variant, record.launch)
            recorder.launched(f"{record.variant} {record.launch}", record, folder)
    return recorder.recording(None)


class _Recorder(Witness):
    """Keeps what a device says of itself, the events of its launches, and the memory of its harness while it runs."""

    iterations = _ITERATIONS

    def __init__(self) -> None:
        self.device: Device | None = None
        self._properties: dict[str, str] = {}
        self._state: dict[str, str] = {}
        self._adb: dict[str, str] = {}
        self._launches: list[tuple[str, RunRecord, str, dict[str, str]]] = []
        self._trees: list[ProcessTree] = []
        self._left_bytes = _MAX_ALL_EVENTS
        self._is_cut = False
        self._is_over = threading.Event()

    def look(self, device: Device) -> None:
        """Read the device's properties and state, and its line in adb's list."""
        self._properties, self._state = device.properties(), state_parts(state_report(device))
        if device.family == "adb":
            line = next((one for one in user_server().attached() if one.serial == device.serial), None)
            words = {key: line.words[key] for key in _ADB_WORDS if key in line.words} if line else {}
            self._adb = {"state": line.state, **words} if line else {}
        self.device = device

    @contextmanager
    def attending(self, device: Device) -> Iterator[None]:
        self.look(device)
        thread = threading.Thread(target=self._watch, args=(device,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join(_TIMEOUT_S)

    def launched(self, check: str, record: RunRecord, folder: Path) -> None:
        if len(self._launches) < MAX_LAUNCHES:
            events = _read_text(folder / EVENTS, min(MAX_EVENTS, self._left_bytes))
            self._left_bytes -= len(events.encode())
            self._launches.append((check, record, events, _contexts(folder / _PLAN)))

    def recording(self, result: BringUp | None) -> Recording:
        """Return everything that was seen, without personal data."""
        device = self.device
        assert device is not None
        serials = {device.serial, plain_name(device.serial)} if device.family == "adb" else set()
        home = {str(Path.home())} if len(Path.home().parts) > _COMMON_PARTS else set()
        personal = PersonalData(serials | home, self._properties)
        texts = {part: personal.clean(self._state.get(part, ""))[:MAX_TEXT] for part in get_args(StatePart)}
        properties = personal.kept_properties(self._properties)
        launches = tuple(
            RecordedLaunch(
                name=name,
                status=record.status.value,
                reason=record.reason and one_line(personal.clean(record.reason), 900),
                events=personal.clean_json_lines(events)[:MAX_EVENTS],
                contexts=contexts,
            )
            for name, record, events, contexts in self._launches
        )
        checks = tuple(
            RecordedCheck(name=check.name, status=check.status.value, said=one_line(personal.clean(check.said), 900))
            for check in (result.checks if result else ())
        )
        return Recording(
            schema_version=1,
            quadbench=version("quadbench"),
            recorded_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            family=device.family,
            profile=device.profile.name,
            adb={key: one_line(personal.clean(value), 200) for key, value in self._adb.items()},
            properties=dict(list(properties.items())[:MAX_PROPERTIES]),
            state=texts,
            checks=checks,
            launches=launches,
            processes=tuple(self._trees),
            is_cut=self._is_cut,
            removed=dict(personal.removed),
        )

    def _watch(self, device: Device) -> None:
        """Read the harness's files in /proc until the session ends, and keep each tree that differs from the one before."""
        latest: dict[int, object] = {}
        while not self._is_over.wait(_BETWEEN_S):
            try:
                text = device.shell(["sh", "-c", _SCRIPT, "watch", f"{device.root}/objects"], _TIMEOUT_S).stdout
            except DeviceError as error:
                log.info("memory is no longer recorded: %s", error.message)
                self._is_cut = bool(self._trees)
                return
            for tree in parse_trees(text):
                seen = (resident_peak_bytes(tree), dma_buffers(tree), tree.descriptors is None)
                if tree.process in latest and latest[tree.process] == seen:
                    continue
                if len(self._trees) == MAX_TREES:
                    self._is_cut = True
                    return
                latest[tree.process] = seen
                self._trees.append(tree)


def parse_trees(text: str) -> list[ProcessTree]:
    """Return the process trees in the output of the watching script. Processes that ended while they were read are left out."""
    trees = []
    for part in text.split(f"{_MARK}process ")[1:]:
        number, _, rest = part.partition("\n")
        if not re.fullmatch(r"[0-9]{1,10}", number) or f"{_MARK}whole" not in rest:
            continue
        sections = dict(
            section.partition("\n")[::2] for section in rest.split(_MARK)[1:] if not section.startswith("descriptor ")
        )
        texts = {name: _readable(rest, name) for name in ("status", "smaps_rollup")}
        if re.search(r"^State:\s+[ZX]", texts["status"] or "", re.MULTILINE):
            continue  # it has ended, and its memory is gone
        listed = rest.split(f"{_MARK}descriptor ")[1:] if "descriptors" in sections else None
        if listed is not None and len(listed) > MAX_DESCRIPTORS:
            listed = None
        descriptors = None if listed is None else tuple(map(_descriptor, listed))
        trees.append(ProcessTree(process=int(number), **texts, descriptors=descriptors))
    return trees


def _readable(text: str, name: str) -> str | None:
    """Return the text of a section of the watching script's output, or None if the device denied reading it."""
    section = text.partition(f"{_MARK}{name}\n")[2]
    content, mark, end = section.partition(_MARK)
    return None if not content.strip() or (mark + end).startswith(_DENIED) else content[:_MAX_TOLD]


def _descriptor(part: str) -> Descriptor:
    """Return a descriptor from its inode, name and fdinfo. Names of ordinary files become `other`, as they may be personal."""
    head, _, rest = part.partition("\n")
    inode, _, name = head.partition(" ")
    is_kept = name.startswith(("/dmabuf:", "/dev/", "anon_inode:"))
    info = rest.partition(_MARK)
    return Descriptor(
        target=(name[:200] if is_kept else "other") if name else None,
        inode=int(inode) if re.fullmatch(r"[0-9]{1,18}", inode) else None,
        info=None if (info[1] + info[2]).startswith(_DENIED) else info[0][:_MAX_TOLD],
    )


def _contexts(plan: Path) -> dict[str, str]:
    """Return the SHA-256 of each graph in a launch's plan by its place there, such as `unets.base`. Return {} without a plan."""
    try:
        content: Any = json.loads(_read_text(plan, _MAX_PLAN_BYTES) or "{}")
    except ValueError:
        return {}
    return dict(_digests({key: content.get(key) for key in ("components", "unets", "patches", "merge")}))


def _digests(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if isinstance(digest := value.get("sha256"), str):
            yield place, digest
        for key, inner in value.items():
            yield from _digests(inner, f"{place}.{key}".strip("."))


def _read_text(path: Path, most: int) -> str:
    """Return a file's text. Return an empty text for a file that is missing or has more than `most` bytes."""
    if not path.is_file():
        return ""
    try:
        return read_file(path, fault=ArtifactError, max_bytes=most).decode(errors="replace")
    except ArtifactError as error:
        log.warning("not recorded: %s", error.message)
        return ""
