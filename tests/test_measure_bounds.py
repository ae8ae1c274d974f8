"""A launch on a device that lies, floods or breaks costs no more than that launch: its record says why, and the next one runs."""

import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.scripted_harness import GOOD, SAMPLES, World, files_of, launch_of, measured, of_metric
from support.sentences import reads, says
from support.watcher import Silent

from quadbench.artifacts import ErrorClass, LaunchPlan, RunRecord, Status
from quadbench.artifacts.safe_text import MAX_CHARACTERS
from quadbench.devices.device import LINE_LIMIT_BYTES
from quadbench.errors import DeviceLostError
from quadbench.measure.derived_samples import IMAGE_LIMIT_BYTES
from quadbench.measure.launch_record import LaunchSettings
from quadbench.measure.launch_schedule import schedule_launches
from quadbench.measure.parallel_launches import DeviceQueue, measure_launches
from quadbench.recipe import Runtime
from quadbench.recipe.settings import Gate

ENDLESS_S = 20.0  # in which a harness without end has been ended, on a machine with other work

IMPOSSIBLE = ["0", "-5", "1e308", "'12'", "True", "10**400"]


def png_head(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims a size, and whose first chunk is whole."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def reason_of(record: RunRecord) -> str:
    assert record.status is Status.FAILED
    assert record.reason is not None
    return record.reason


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ("run(skip=lambda task, i, is_warmup: i >= 5)", (5, 11)),
        pytest.param("run(skip=lambda task, i, is_warmup: True)", (0, 1), marks=pytest.mark.slow),
        ("run()\nrun()", (5, "session_load_ns", 4)),
        pytest.param("run(skip=lambda task, i, is_warmup: not is_warmup)", (0, 11), marks=pytest.mark.slow),
    ],
    ids=["half", "none", "all twice", "all warm-up"],
)
def test_a_launch_with_other_samples_than_its_plan_is_not_ok(world: World, run: str, reason: tuple[object, ...]) -> None:
    record = measured(world, GOOD.replace("run()", run))
    says(reason_of(record), *reason)
    assert record.error_class is ErrorClass.HARNESS


@pytest.mark.parametrize("values", [IMPOSSIBLE, *(pytest.param([value], marks=pytest.mark.slow) for value in IMPOSSIBLE)])
def test_a_time_that_nobody_can_measure_fails_the_launch_and_is_not_kept(world: World, values: list[str]) -> None:
    lies = "".join(f'\nsample(value={value}, task="restyle", iteration=0, is_warmup=False)' for value in values)
    record = measured(world, GOOD.replace("run()", f"run(){lies}"))
    says(reason_of(record), "of the harness's output")
    assert len([s for s in record.samples if s.metric != "rom_bytes" and s.metric.endswith(("_ns", "_bytes"))]) == SAMPLES


def test_a_harness_that_writes_without_end_is_ended(world: World) -> None:
    began = time.monotonic()
    record = measured(world, 'header()\nwhile True:\n    sample("rss_bytes", 7, task="restyle")', timeout_s=5.0)
    assert time.monotonic() - began < ENDLESS_S
    assert "that the plan allows; the harness was stopped" in reason_of(record) or "timed out" in reason_of(record)
    assert len(record.samples) < 2000


def test_a_line_without_end_is_not_read_to_its_end(world: World) -> None:
    began = time.monotonic()
    record = measured(world, 'header()\nblock = "x" * 2**20\nfor _ in range(500):\n    sys.stdout.write(block)')
    assert time.monotonic() - began < ENDLESS_S
    says(reason_of(record), 2)
    says(reason_of(record), LINE_LIMIT_BYTES)
    assert record.error_class is ErrorClass.HARNESS
    assert (files_of(world) / "events.jsonl").stat().st_size < 2 * LINE_LIMIT_BYTES


def test_much_on_stderr_is_kept_in_its_end_alone(world: World) -> None:
    script = (
        'header()\nfor _ in range(50):\n    sys.stderr.write("x" * 2**20)\nprint("\\nthe reason", file=sys.stderr)\nsys.exit(3)'
    )
    record = measured(world, script)
    says(reason_of(record), 1)
    assert len(reason_of(record)) < MAX_CHARACTERS


def test_a_long_reason_is_cut_and_says_so(world: World) -> None:
    record = measured(world, f'header()\nemit("error", message="no " * {LINE_LIMIT_BYTES // 4})\nfooter("FAILED")\nsys.exit(3)')
    assert len(reason_of(record)) < 2 * MAX_CHARACTERS
    assert "more characters)" in reason_of(record)


def test_codes_for_a_terminal_stand_in_no_reason(world: World) -> None:
    error = 'emit("error", message="\\x1b[2J\\x1b[31mred\\x1b[0m\\u202e\\x00", where="[/foo]")'
    assert reason_of(measured(world, f'header()\n{error}\nfooter("FAILED")\nsys.exit(3)')).endswith(
        "[/foo]: \\x1b[2Jred\\u202e\\x00"
    )


def test_the_runtimes_remarks_are_no_cause_of_a_killed_harness(world: World) -> None:
    log = "\\x1b[0;93m2026-11-25 14:00:00.1 [W:onnxruntime:quadbench, telemetry_1ds.cc:1 x] [Telemetry] no CA bundle\\x1b[m"
    killed = "os.kill(os.getpid(), signal.SIGKILL)"
    reason = reason_of(measured(world, f'header()\nprint("{log}", file=sys.stderr, flush=True)\n{killed}'))
    says(reason, 9)
    said = reason_of(
        measured(world, f'header()\nprint("out of arena\\n{log}", file=sys.stderr, flush=True)\n{killed}', run_id="run-2")
    )
    says(said)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ('os.symlink("/dev/zero", path)', ""),
        pytest.param('os.symlink("/etc/passwd", path)', "is not a regular file", marks=pytest.mark.slow),
        ("os.mkfifo(path)", ""),
        pytest.param("os.mkdir(path)", "is not a regular file", marks=pytest.mark.slow),
        (f"open(path, 'wb').truncate({IMAGE_LIMIT_BYTES + 1})", IMAGE_LIMIT_BYTES),
        ("pass", ""),
    ],
    ids=["endless", "a secret", "pipe", "folder", "large", "missing"],
)
def test_an_image_that_is_no_plain_file_is_not_fetched(world: World, place: str, reason: object) -> None:
    script = f"""
def place(path):
    os.makedirs(os.path.dirname(path))
    {place}
place(plan["images"] + "/restyle/000.png")
announce("restyle", "000")
time.sleep(0.02)  # no launch is shorter than what it says that loading took
"""
    record = measured(world, GOOD.replace("paint_all()", script))
    says(reason_of(record), reason)
    assert record.error_class is ErrorClass.HARNESS
    assert record.images == {}
    assert not (files_of(world) / "images" / "restyle" / "000.png").exists()


def test_an_image_behind_a_linked_folder_is_not_fetched(world: World, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "000.png").write_bytes(b"a secret")
    link = f'os.makedirs(plan["images"])\nos.symlink("{tmp_path}/elsewhere", plan["images"] + "/restyle")\n'
    link += 'announce("restyle", "000")'
    says(reason_of(measured(world, GOOD.replace("paint_all()", link))))


def test_an_image_elsewhere_than_planned_is_not_fetched(world: World) -> None:
    record = measured(world, GOOD.replace("paint_all()", 'announce("restyle", "000", path="/dev/zero")'))
    says(reason_of(record), "restyle/000", "/dev/zero")


@pytest.mark.parametrize(
    "content",
    [
        png_head(50_000, 50_000),
        b"GIF89a",
        *(pytest.param(content, marks=pytest.mark.slow) for content in (png_head(0, 8), b"\x89PNG\r\n\x1a\n", b"")),
    ],
)
def test_an_image_is_looked_at_before_it_is_opened(world: World, content: bytes) -> None:
    script = f"""
path = pathlib.Path(plan["images"]) / "restyle/000.png"
path.parent.mkdir(parents=True)
path.write_bytes({content!r})
announce("restyle", "000", hashlib.sha256({content!r}).hexdigest())
"""
    record = measured(world, GOOD.replace("paint_all()", script))
    says(reason_of(record), "restyle/000")
    assert record.images == {}


class Broken:
    """A device whose shell breaks in a way that nobody has thought of, once its time has come."""

    def __init__(self, device: Any, is_time: Callable[[list[str]], bool]) -> None:
        self._device, self._is_time = device, is_time

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def shell(self, argv: list[str], timeout_s: float) -> Any:
        if self._is_time(argv):
            raise RuntimeError("[/foo]\x1b[2J")
        return self._device.shell(argv, timeout_s)


def all_launches(world: World, device: Any, launches: list[LaunchPlan], gate: Gate | None = None) -> list[RunRecord]:
    records: list[RunRecord] = []
    settings = LaunchSettings(run_id="run-1", layout=world.layout, runtime=Runtime(), timeout_s=60.0, gate=gate or Gate())
    installation = world.installation(world.harness(GOOD), device=device)
    queues = [DeviceQueue(device=device, schedule=schedule_launches(installation, launches, settings, repeats=0))]
    measure_launches(queues, store=records.append, observer=Silent())
    return records


def test_what_nobody_has_thought_of_costs_one_launch(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="quadbench")
    listings: list[str] = []

    def is_time(argv: list[str]) -> bool:
        listings.extend(word for word in argv if "find" in word)
        return len(listings) == 1 and "find" in " ".join(argv)

    first, second = all_launches(world, Broken(world.device, is_time), [launch_of(), launch_of()])
    reads(reason_of(first), "-v", "RuntimeError", "[/foo]\\x1b[2J")
    assert first.error_class is ErrorClass.INFRASTRUCTURE
    assert len(of_metric(first, "end_to_end_ns")) == 24
    assert second.status is Status.OK
    assert "Traceback" in caplog.text


class Hot(Broken):
    """A device that is hot until its state was read so many times."""

    def __init__(self, device: Any, folder: Path, readings: int) -> None:
        super().__init__(device, lambda argv: False)
        self._folder, self._left = folder, readings
        folder.mkdir()
        (folder / "dumpsys").touch(mode=0o755)

    def shell(self, argv: list[str], timeout_s: float) -> Any:
        if "dumpsys" in " ".join(argv):
            self._left -= 1
        status = 3 if self._left >= 0 else 0
        script = f"#!/bin/sh\n[ $1 = thermalservice ] && echo 'Thermal Status: {status}'\nexit 0\n"
        (self._folder / "dumpsys").write_text(script)
        return self._device.shell(["env", f"PATH={self._folder}:/usr/bin:/bin", *argv], timeout_s)


def test_a_device_that_is_never_ready_costs_one_wait_and_not_one_for_each_launch(world: World) -> None:
    device = Hot(world.device, Path(world.device.root) / "bin", 1000)
    launches = [replace(launch_of(), launch=number) for number in range(5)]
    records = all_launches(world, device, launches, Gate(wait_s=0.5))
    assert [record.status for record in records] == [Status.SKIPPED] * 5
    reads(records[0].reason, 3, 1, "0.5")
    assert len({record.reason for record in records[1:]}) == 1
    reads(records[1].reason, 3, 1, "0.5")
    assert 1000 - device._left == 2 + 4  # the first looks, waits and looks again; each other looks once


def test_a_device_that_becomes_ready_later_runs_the_launches_that_are_left(world: World) -> None:
    device = Hot(world.device, Path(world.device.root) / "bin", 3)
    launches = [replace(launch_of(), launch=number) for number in range(3)]
    records = all_launches(world, device, launches, Gate(wait_s=0.5))
    assert [record.status for record in records] == [Status.SKIPPED, Status.SKIPPED, Status.OK]


def test_an_odd_state_of_a_device_is_unavailable_and_no_crash(world: World) -> None:
    odd = "#!/bin/sh\n[ $1 = thermalservice ] && printf 'Thermal Status: 99999999999999999999\\nCurrent temperatures from HAL:\\n"
    odd += "\\tTemperature{mValue=hot, mType=3, mName=SKIN, mStatus=0}\\n'\n"
    folder = Path(world.device.root) / "bin"
    folder.mkdir()
    for name, script in (("dumpsys", odd), ("nproc", f"#!/bin/sh\necho {'9' * 5000}\n")):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)

    class OddState(Broken):
        def shell(self, argv: list[str], timeout_s: float) -> Any:
            return self._device.shell(["env", f"PATH={folder}:/usr/bin:/bin", *argv], timeout_s)

    (record,) = all_launches(world, OddState(world.device, lambda argv: False), [launch_of()])
    assert record.status is Status.OK
    assert (record.state["before.thermal_status"], record.state["before.cores"]) == ("unavailable", "unavailable")


def test_what_a_lost_connection_left_on_the_device_goes_with_the_next_launch(world: World) -> None:
    runs = Path(world.device.root) / "runs"
    for name in ("run-0", "of-another-results-folder", "run-1"):
        (runs / name / "images" / "restyle").mkdir(parents=True)
    world.layout.run("run-0").mkdir(parents=True)
    assert measured(world, GOOD).status is Status.OK
    assert [path.name for path in runs.iterdir()] == ["of-another-results-folder"]


class Lost(Broken):
    """A device that goes away while the harness runs, and stays away."""

    is_gone = False

    def __init__(self, device: Any) -> None:
        super().__init__(device, lambda argv: False)

    def shell(self, argv: list[str], timeout_s: float) -> Any:
        self._refuse()
        return self._device.shell(argv, timeout_s)

    def push(self, *words: Any) -> None:
        self._refuse()
        self._device.push(*words)

    def stream(self, *words: Any) -> Iterator[str]:
        for number, line in enumerate(self._device.stream(*words)):
            yield line
            self.is_gone = number == 100
            self._refuse()

    def _refuse(self) -> None:
        if self.is_gone:
            raise DeviceLostError("device 'x' was lost: the connection was closed")


def test_a_device_that_is_lost_while_it_measures_is_the_devices_fault(world: World) -> None:
    first, second = all_launches(world, Lost(world.device), [launch_of(), launch_of()])
    says(reason_of(first), 101)
    assert "was lost" in reason_of(second)
    assert (first.error_class, second.error_class) == (ErrorClass.DEVICE, ErrorClass.DEVICE)
    assert len(of_metric(first, "end_to_end_ns")) > 5
    assert (Path(world.device.root) / "runs" / "run-1").is_dir()
    assert measured(world, GOOD, run_id="run-2").status is Status.OK
    assert list((Path(world.device.root) / "runs").iterdir()) == []
