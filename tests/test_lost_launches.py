"""A launch on a phone outlives a broken connection; where it ends with a reboot or Ctrl-C, its harness is not left running."""

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.adb_link import Phone
from support.device_contract import state_of, wait_until_gone
from support.scripted_harness import GOOD, LIBRARIES, SAMPLES, World, launch_of, measured, of_metric
from support.sentences import reads, says
from support.watcher import Silent

from quadbench.artifacts import ErrorClass, RunRecord, Status, Variant
from quadbench.devices import adb_commands
from quadbench.measure.launch import LaunchAborted
from quadbench.measure.launch_record import LaunchSettings
from quadbench.measure.launch_schedule import schedule_launches
from quadbench.measure.parallel_launches import DeviceQueue, measure_launches
from quadbench.recipe import Runtime
from quadbench.recipe.settings import Gate
from quadbench.results.layout import Layout

pytestmark = pytest.mark.slow  # each of these has real processes and waits for them

ANY_LOAD = Gate(max_busy_percent=100)  # whatever else this machine does


# A phone has no library that paints: its images are the references, which were pushed with everything else.
ON_PHONE = """
references = json.loads({references!r})
def paint(task, item):
    path = pathlib.Path(plan["images"]) / task / (item + ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pathlib.Path(plan["root"], "objects", references[task + "/" + item]).read_bytes())
    announce(task, item, hashlib.sha256(path.read_bytes()).hexdigest())
at_once = emit
def emit(*words, **named):
    time.sleep(0.015)
    at_once(*words, **named)
"""


class PhoneWorld(World):
    """A bundle on a phone, whose results folder is the one that its devices have."""

    @property
    def layout(self) -> Layout:
        return Layout(self.folder.parent)

    def launched(self, script: str = GOOD, *, run_id: str = "run-1", timeout_s: float = 60.0) -> RunRecord:
        """The record of one launch on the phone."""
        references = {
            f"{task.name}/{item.name}": item.reference.sha256
            for task in self.bundle.tasks
            for item in task.items
            if item.reference
        }
        on_phone = ON_PHONE.format(references=json.dumps(references))
        self.layout.run(run_id).mkdir(parents=True, exist_ok=True)
        return measured(self, on_phone + script, run_id=run_id, timeout_s=timeout_s, limits=ANY_LOAD)

    def heard(self, lines: int) -> Callable[[], None]:
        """A step that waits until so many lines of the first launch have come."""
        events = self.layout.launch("run-1", "s25", Variant.SHARED, 0) / "events.jsonl"

        def wait() -> None:
            deadline = time.monotonic() + 60
            while not events.exists() or events.read_text().count("\n") < lines:
                assert time.monotonic() < deadline
                time.sleep(0.05)

        return wait

    def first_image(self) -> None:
        """A step that waits until an image of the first launch has come."""
        images = self.layout.launch("run-1", "s25", Variant.SHARED, 0) / "images"
        deadline = time.monotonic() + 60
        while not list(images.glob("*/*.png")):
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def left(self) -> list[str]:
        """The folders of launches on the phone."""
        return self.device.shell(["ls", f"{self.device.root}/runs"], 10).stdout.split()


@pytest.fixture
def phone_world(phone: Phone, tmp_path: Path) -> PhoneWorld:
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs the system's Python, as a virtual device sees what lies below /usr")
    return PhoneWorld(tmp_path / "bundle", phone.device)


def test_a_launch_over_a_broken_connection_is_as_good_as_any(phone: Phone, phone_world: PhoneWorld) -> None:
    phone.later((0.0, phone_world.heard(20)), (0.0, phone.link.cut), (1.5, phone.link.mend))
    record = phone_world.launched()
    assert (record.status, record.reason, phone.link.cuts) == (Status.OK, None, 1)
    events = phone_world.layout.launch("run-1", "s25", Variant.SHARED, 0) / "events.jsonl"
    assert len(events.read_text().splitlines()) == 1 + SAMPLES + LIBRARIES + 4 + 1
    assert len(of_metric(record, "end_to_end_ns")) == 24
    assert phone_world.left() == []


def test_a_reboot_in_a_launch_keeps_its_samples_is_the_devices_fault_and_the_next_launch_runs(
    phone: Phone, phone_world: PhoneWorld
) -> None:
    phone.later((0.0, phone_world.heard(2)), (0.0, phone.link.cut), (0.0, phone.link.reboot), (2.0, phone.link.mend))
    record = phone_world.launched(
        "header()\n"
        "for iteration in range(3):\n"
        "    sample(task=plan['sequence'][0]['task'], iteration=iteration, is_warmup=False)\n"
        "    time.sleep(1.5 if iteration == 0 else 0)\n"
        "time.sleep(600)"
    )
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.DEVICE)
    assert record.reason is not None
    says(record.reason, "device 's25' rebooted after")
    assert len(of_metric(record, "end_to_end_ns")) == 3
    assert phone_world.launched(run_id="run-2").status is Status.OK
    assert phone_world.left() == []


@pytest.mark.slow
def test_a_launch_whose_connection_is_lost_at_its_end_is_as_good_as_any(phone: Phone, phone_world: PhoneWorld) -> None:
    phone.later((0.0, phone_world.first_image), (0.0, phone.link.hold), (0.5, phone.link.cut), (1.5, phone.link.mend))
    record = phone_world.launched()
    assert (record.status, record.reason, phone.link.cuts, len(record.images)) == (Status.OK, None, 1, 4)
    assert "after.uptime_s" in record.state
    assert phone_world.left() == []


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


WAITING = "header()\nsample()\npathlib.Path(plan['root'], 'pid').write_text(str(os.getpid()))\ntime.sleep(600)"


@pytest.mark.slow
def test_a_harness_that_was_left_behind_is_ended_before_the_next_launch(
    phone: Phone, phone_world: PhoneWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_commands, "RECONNECT_S", 0.2)
    phone.later((0.0, phone_world.heard(2)), (0.5, phone.link.cut))
    assert phone_world.launched(WAITING).status is Status.FAILED
    process = phone.beside.shell(["cat", f"{phone.device.root}/pid"], 10).stdout
    assert state_of(phone.beside, process) not in ("", "Z")
    phone.link.mend()
    assert phone_world.launched(run_id="run-2").status is Status.OK
    assert state_of(phone.beside, process) in ("", "Z")
    assert phone_world.left() == []


@pytest.mark.slow
def test_ctrl_c_without_a_connection_stores_the_launch_and_the_next_one_ends_its_harness(
    phone: Phone, phone_world: PhoneWorld
) -> None:
    phone.later((0.0, phone_world.heard(2)), (0.5, phone.link.cut), (2.0, interrupt))
    with pytest.raises(LaunchAborted) as caught:
        phone_world.launched(WAITING)
    assert caught.value.record.status == Status.ABORTED
    reads(caught.value.record.reason, "interrupted after 1 samples")
    process = phone.beside.shell(["cat", f"{phone.device.root}/pid"], 10).stdout
    assert state_of(phone.beside, process) not in ("", "Z")
    phone.link.mend()
    assert phone_world.launched(run_id="run-2").status is Status.OK
    assert state_of(phone.beside, process) in ("", "Z")


def test_a_second_ctrl_c_ends_the_launch_of_a_phone_and_starts_no_other(phone: Phone, phone_world: PhoneWorld) -> None:
    records: list[RunRecord] = []
    installation = phone_world.installation(phone_world.harness(WAITING))
    settings = LaunchSettings(
        run_id="run-1", layout=phone_world.layout, runtime=Runtime(threads=1), timeout_s=60.0, gate=ANY_LOAD
    )
    turns = schedule_launches(installation, [launch_of(), launch_of()], settings, repeats=0)
    queues = [DeviceQueue(device=installation.device, schedule=turns)]
    phone.later((0.0, phone_world.heard(2)), (0.5, interrupt), (0.5, interrupt))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        measure_launches(queues, store=records.append, observer=Silent())
    assert time.monotonic() - began < 30
    (record,) = records
    assert (record.status, record.error_class) == (Status.ABORTED, ErrorClass.USER)
    reads(record.reason, "interrupted after 1 samples")
    process = phone.beside.shell(["cat", f"{phone.device.root}/pid"], 10).stdout
    wait_until_gone(phone.beside, process)
