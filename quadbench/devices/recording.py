"""Recordings of phones: one archive of a phone's answers in a session, which a virtual device repeats as its own.

A recording is one JSON document, compressed by gzip. It comes from other people, so sizes, counts and names are bounded, and no
name in it becomes a path.
"""

import gzip
import os
import re
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from quadbench.artifacts import MIB
from quadbench.artifacts.safe_text import Sha256, one_line
from quadbench.devices.scenario import Scenario, load_scenario
from quadbench.errors import UserError
from quadbench.results.disk import require_folder, storage_errors
from quadbench.spec import Spec, first_problem, read_file

ENDING = ".json.gz"
MAX_ARCHIVE_BYTES = 16 * MIB
MAX_BYTES = 64 * MIB  # unpacked
MAX_TEXT = MIB
MAX_EVENTS = 8 * MIB
MAX_PROPERTIES = 5000
MAX_LAUNCHES = 20
MAX_TREES = 200
MAX_DESCRIPTORS = 1024  # of a process; Android allows more, a harness opens tens
_HINT = "ask for the archive again; quadbench devices record writes it"
StatePart = Literal["thermal", "battery", "screen", "load", "memory", "uptime", "cores", "clocks"]
_SERVICES: dict[StatePart, str] = {"thermal": "thermalservice", "battery": "battery", "screen": "power"}
_CLOCKS = re.compile(r"^(policy\d{1,3}) (\d{1,12}|-) (\d{1,12}|-) (\d{1,12}|-)$", re.MULTILINE | re.ASCII)
_CLOCK_FILES = ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq")
_DMA_BUF_NAMES = ("/dmabuf:", "anon_inode:dmabuf")

Text = Annotated[str, Field(max_length=MAX_TEXT)]
Words = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
PropertyName = Annotated[str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9_.:@-]+$")]
Amount = Annotated[int, Field(ge=0, lt=2**63)]


class Descriptor(Spec):
    """An open file of a recorded process, from /proc/PID/fd and /proc/PID/fdinfo."""

    target: Annotated[str, StringConstraints(max_length=200)] | None
    """The file's name if it is a DMA buffer or a device, `other` for other files; null if the name was unreadable."""
    inode: Amount | None
    """The file's inode number, which is equal for descriptors of one buffer; null if unreadable."""
    info: Text | None
    """The content of the descriptor's file in fdinfo; null if unreadable."""


class ProcessTree(Spec):
    """The files below /proc/PID that tell a process's memory, read once."""

    process: Amount
    """The process's id."""
    status: Text | None
    """The lines of /proc/PID/status about state and memory; null if unreadable."""
    smaps_rollup: Text | None
    """The content of /proc/PID/smaps_rollup; null if unreadable."""
    descriptors: tuple[Descriptor, ...] | None = Field(max_length=MAX_DESCRIPTORS)
    """The process's open files; null if they were not listed completely."""


class RecordedCheck(Spec):
    """The result of one check of `quadbench doctor --device`."""

    name: Words
    """The check's name."""
    status: Words
    """ok, failed, not told or not tried."""
    said: Words
    """The finding, or the reason of a failure."""


class RecordedLaunch(Spec):
    """A launch of the harness: its outcome, its events, and the digests of the files in its plan."""

    name: Words
    """The name of the check or the launch."""
    status: Words
    """The launch's status, such as OK."""
    reason: Words | None
    """The reason of a failure; null if there is none."""
    events: Annotated[str, Field(max_length=MAX_EVENTS)]
    """The lines that the harness printed, one JSON object each."""
    contexts: dict[Words, Sha256] = Field(max_length=200)
    """The SHA-256 of each graph or context binary of the plan, by its place in the plan."""


class Recording(Spec):
    """A session with a device: what it said of itself, and what the harness printed on it."""

    schema_version: Literal[1]
    """The version of this format is 1."""
    quadbench: Words
    """The version of quadbench that wrote the recording."""
    recorded_at: Words
    """The time of the recording, in UTC."""
    family: Words
    """The kind of device: adb for an attached phone, virtual, or local."""
    profile: Words
    """The name of the device's profile."""
    adb: dict[Words, Words] = Field(max_length=20)
    """The device's line of `adb devices -l` without numbers of this machine: state, product, model and device."""
    properties: dict[PropertyName, Words] = Field(max_length=MAX_PROPERTIES)
    """The properties that `getprop` listed, without personal ones."""
    state: dict[StatePart, Text]
    """Reports of temperature, battery, screen, load, memory and clocks, as the device printed them."""
    checks: tuple[RecordedCheck, ...] = Field(max_length=100)
    """The results of `quadbench doctor`; none if the events are those of a run."""
    launches: tuple[RecordedLaunch, ...] = Field(max_length=MAX_LAUNCHES)
    """The launches of the harness."""
    processes: tuple[ProcessTree, ...] = Field(max_length=MAX_TREES)
    """The memory of harness processes, read repeatedly while they ran."""
    is_cut: bool
    """Processes went on after the last tree that was kept, so peaks of memory are unknown."""
    removed: dict[Words, Amount] = Field(max_length=50)
    """How often each kind of personal data was removed."""


class RecordedScenario(Scenario):
    """A scenario that repeats a recording: the virtual device reports the recorded properties, state, memory and clocks."""

    recording: Recording
    """The recording that is repeated."""


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """A process's peak memory in bytes: resident memory, and DMA buffers that it had open. None means unknown, never 0.

    The two are not added, as some drivers count pages of DMA buffers as resident.
    """

    resident_bytes: int | None
    dma_buf_bytes: int | None


def write_recording(recording: Recording, path: Path) -> None:
    """Write a recording to a file, complete or not at all. Equal recordings give equal files.

    Raises:
        UserError: the recording is too large to be read again.
        StorageError: the file cannot be written.
    """
    text = recording.model_dump_json(indent=1).encode()
    content = gzip.compress(text, mtime=0)
    if len(text) > MAX_BYTES or len(content) > MAX_ARCHIVE_BYTES:
        raise UserError(f"the recording has {len(text)} bytes, expected at most {MAX_BYTES}", hint="record a shorter run")
    with storage_errors(path.parent):
        require_folder(path.parent)
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)


def read_recording(path: Path) -> Recording:
    """Read a recording that `write_recording` wrote.

    Raises:
        UserError: the file is missing, larger than a recording may be, or none.
    """
    content = read_file(path, fault=UserError, hint=_HINT, max_bytes=MAX_ARCHIVE_BYTES)
    unpacking = zlib.decompressobj(wbits=31)  # gzip's format
    try:
        text = unpacking.decompress(content, MAX_BYTES + 1)
    except zlib.error as error:
        raise _refused(path, f"it is not in gzip's format ({error})") from error
    if len(text) > MAX_BYTES:
        raise _refused(path, f"it unpacks to more than {MAX_BYTES} bytes")
    if not unpacking.eof or unpacking.unused_data:
        raise _refused(path, "it is cut off" if not unpacking.eof else "something follows its end")
    try:
        return Recording.model_validate_json(text)
    except ValidationError as error:
        raise _refused(path, one_line(first_problem(error))) from error


def open_scenario(name_or_path: str) -> Scenario:
    """Return the scenario of a name or a YAML file, or one that repeats the recording in a file that ends with `.json.gz`.

    Raises:
        UserError: there is no such scenario or file, or it is invalid.
    """
    if not name_or_path.endswith(ENDING):
        return load_scenario(name_or_path)
    recording = read_recording(Path(name_or_path))
    title = f"A recording of {recording.profile}, {recording.recorded_at}"[:200]
    return RecordedScenario(schema_version=1, name="recording", title=title, recording=recording)


def write_recorded_state(recording: Recording, folder: Path) -> None:
    """Write a recording's reports, memory and clocks to a virtual device's sandbox folder, which has a subfolder `system`."""
    reports = folder / "system" / "etc" / "dumpsys"
    for part, service in _SERVICES.items():
        (reports / service).write_text(recording.state.get(part, ""))
    if memory := recording.state.get("memory"):
        (folder / "meminfo").write_text(memory)
    for policy, *frequencies in _CLOCKS.findall(recording.state.get("clocks", "")):
        place = folder / "clocks" / policy
        place.mkdir(parents=True, exist_ok=True)
        for name, khz in zip(_CLOCK_FILES, frequencies, strict=True):
            if khz != "-":
                (place / name).write_text(f"{khz}\n")


def peaks_of(recording: Recording) -> dict[int, PeakMemory]:
    """Return the peak memory of each recorded process by its id. If the recording was cut, no peak is known."""
    trees: dict[int, list[ProcessTree]] = {}
    for tree in recording.processes:
        trees.setdefault(tree.process, []).append(tree)
    unknown = PeakMemory(resident_bytes=None, dma_buf_bytes=None)
    return {process: unknown if recording.is_cut else peak_memory(own) for process, own in trees.items()}


def peak_memory(trees: Sequence[ProcessTree]) -> PeakMemory:
    """Return a process's peak memory from trees read one after the other. One unreadable tree makes a peak unknown.

    Where no DMA buffer was ever open, their peak is unknown too: an NPU's driver may close a descriptor and keep the memory.
    """
    return PeakMemory(
        resident_bytes=_largest([resident_peak_bytes(tree) for tree in trees]),
        dma_buf_bytes=_largest([_sum_known(dma_buffers(tree)) for tree in trees]),
    )


def resident_peak_bytes(tree: ProcessTree) -> int | None:
    """Return VmHWM, the peak of resident memory until now, in bytes. Return None if the kernel did not say it."""
    match = re.search(r"^VmHWM:\s+(\d{1,15}) kB$", tree.status or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def dma_buffers(tree: ProcessTree) -> dict[int, int] | None:
    """Return a process's open DMA buffers as a dict from inode to bytes. Return None if one of its descriptors is unreadable."""
    if tree.descriptors is None:
        return None
    sizes: dict[int, int] = {}
    for one in tree.descriptors:
        is_named = one.target is not None and one.target.startswith(_DMA_BUF_NAMES)
        is_told = one.info is not None and re.search(r"^exp_name:", one.info, re.MULTILINE) is not None
        if not is_named and not is_told:
            if one.target is None and one.info is None:
                return None
            continue
        size = re.search(r"^size:\s+(\d{1,15})$", one.info or "", re.MULTILINE)
        if size is None or one.inode is None:
            return None
        sizes[one.inode] = int(size[1])
    return sizes


def _sum_known(sizes: Mapping[int, int] | None) -> int | None:
    return None if sizes is None else sum(sizes.values())


def _largest(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return (max(known, default=0) or None) if len(known) == len(values) else None


def _refused(path: Path, why: str) -> UserError:
    return UserError(f"'{path}' is not a recording of a phone: {why}", hint=_HINT)
