"""Harnesses that lie, crash, hang and are interrupted, run for real: what was measured is kept, and the reason is theirs."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scripted_harness import GOOD, LIBRARIES, SAMPLES, World, files_of, measured, of_metric
from support.sentences import reads, says

from quadbench.artifacts import ErrorClass, Status
from quadbench.measure.launch import LaunchAborted


def test_a_crash_keeps_the_samples_before_it_and_names_the_signal(world: World) -> None:
    record = measured(world, "header()\nrun()\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.HARNESS)
    assert record.reason is not None
    says(record.reason, 11, SAMPLES + LIBRARIES + 1, SAMPLES)
    assert len(of_metric(record, "end_to_end_ns")) == 24


def test_a_library_of_the_system_in_place_of_the_one_that_was_pushed_fails_the_launch(world: World) -> None:
    wrong = 'tell("/vendor/lib64/libonnxruntime.so")'
    record = measured(world, GOOD.replace("run()", f"run()\n{wrong}"))
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.HARNESS)
    runtime = world.objects[world.runtime]
    reads(record.reason, "/vendor/lib64/libonnxruntime.so", runtime)
    crash = measured(world, f"header()\n{wrong}\nos.kill(os.getpid(), signal.SIGSEGV)", run_id="run-2")
    says(str(crash.reason), "/vendor/lib64/libonnxruntime.so")


def test_an_exit_code_without_a_word_is_a_failure_with_the_last_of_stderr(world: World) -> None:
    record = measured(world, 'header()\nprint("cannot map arena", file=sys.stderr)\nsys.exit(3)')
    assert record.reason is not None
    says(record.reason, 3)


def test_a_harness_that_says_what_is_wrong_is_quoted(world: World) -> None:
    script = 'header()\nemit("error", message="session refused", where="unet")\nfooter("FAILED")\nsys.exit(3)'
    record = measured(world, script)
    reads(record.reason, "3: unet")
    assert record.error_class is ErrorClass.HARNESS


def test_the_errors_of_litert_s_log_say_what_its_status_does_not(world: World) -> None:
    log = "INFO: [a.cc:1] fine\nERROR: [b.cc:2] Unsupported dispatch runtime version\nERROR: Node 2 failed to prepare.\n" * 2
    said = 'header()\nemit("error", message="LiteRtRunCompiledModel ended with status 3", where="LiteRT")\nfooter("FAILED")'
    record = measured(world, f"{said}\nprint({log!r}, file=sys.stderr)\nsys.exit(3)")
    reads(record.reason, "3: LiteRT", "LiteRtRunCompiledModel", 3, "Unsupported", "Node", 2)


def test_a_plan_that_the_harness_refuses_is_the_infrastructures_fault(world: World) -> None:
    record = measured(world, 'emit("error", message="missing", where="unets")\nfooter("FAILED")\nsys.exit(2)')
    assert record.error_class is ErrorClass.INFRASTRUCTURE
    reads(record.reason, "2: unets")


def test_a_harness_that_cannot_be_started_is_said_to_be_so(world: World) -> None:
    record = measured(world, GOOD, harness_mode="644")
    assert record.error_class is ErrorClass.INFRASTRUCTURE
    assert record.reason is not None
    says(record.reason)


def test_a_hanging_harness_is_killed_and_recorded(world: World) -> None:
    began = time.monotonic()
    record = measured(world, "header()\nsample()\ntime.sleep(600)", timeout_s=2)
    assert time.monotonic() - began < 30
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.HARNESS)
    assert record.reason is not None
    says(record.reason)
    assert "raise measure.timeout_s" in record.reason
    assert len(of_metric(record, "end_to_end_ns")) == 1


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (GOOD.replace("run()", 'print("{not json")\nrun()'), (2,)),
        (
            GOOD.replace("run()", "sample(value=float('nan'))\nrun()"),
            (2, "sample.value"),
        ),
        (GOOD.replace("header()\n", ""), (1,)),
        ("header()\nrun()\npaint_all()\n", (0, 250)),
        (GOOD.replace("footer()", f"footer(samples={SAMPLES + 1})"), (SAMPLES + 1, SAMPLES)),
        (GOOD.replace("footer()", 'footer("FAILED")'), ()),
        (GOOD.replace("header()", 'header(plan_sha256="0" * 64)'), ("sha256",)),
        (GOOD.replace("paint_all()", 'paint("restyle", "000")'), ("restyle/001",)),
    ],
)
def test_output_that_cannot_be_trusted_fails_the_launch_and_keeps_its_samples(
    world: World, script: str, reason: tuple[object, ...]
) -> None:
    record = measured(world, script)
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.HARNESS)
    assert record.reason is not None
    says(record.reason, *reason)
    assert len(of_metric(record, "end_to_end_ns")) >= 24


def test_a_line_that_is_cut_off_is_named_by_its_number(world: World) -> None:
    record = measured(world, 'header()\nsample()\nsys.stdout.write(\'{"event": "samp\')\nsys.stdout.flush()\nos._exit(1)')
    assert record.reason is not None
    says(record.reason, 1, 3)


def test_ctrl_c_kills_the_harness_and_hands_back_what_it_had_measured(world: World) -> None:
    script = f'header()\nsample()\npathlib.Path("{world.folder}/pid").write_text(str(os.getpid()))\ntime.sleep(600)'
    events = files_of(world) / "events.jsonl"
    heard_both = lambda: (world.folder / "pid").exists() and events.read_text().count("\n") == 2  # noqa: E731
    threading.Thread(target=_interrupt_once, args=(heard_both,), daemon=True).start()
    with pytest.raises(LaunchAborted) as caught:
        measured(world, script)
    record = caught.value.record
    assert isinstance(caught.value, KeyboardInterrupt)
    assert (record.status, record.error_class) == (Status.ABORTED, ErrorClass.USER)
    reads(record.reason, 1)
    assert len(of_metric(record, "end_to_end_ns")) == 1
    assert not Path(f"/proc/{(world.folder / 'pid').read_text()}").exists()
    assert list((Path(world.device.root) / "runs").iterdir()) == []


def _interrupt_once(is_time: Callable[[], bool]) -> None:
    while not is_time():
        time.sleep(0.05)
    time.sleep(0.2)  # the line is in the file just before it is heard
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
