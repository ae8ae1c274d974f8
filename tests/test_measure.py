"""A launch becomes a record whatever becomes of it: harnesses that work, lie, crash, hang and paint wrongly, run for real."""

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scripted_harness import ITEMS, TASKS, World, launch_of

from quadbench.artifacts import Caveat, ErrorClass, RunRecord, Sample, Status, Variant
from quadbench.devices.local import LocalDevice, open_local
from quadbench.errors import ArtifactError, UnknownNameError
from quadbench.measure import GateLimits, LaunchAborted, measure_launch
from quadbench.measure.events import Heard
from quadbench.pixels import PSNR_CAP_DB, max_abs_difference, psnr_db
from quadbench.plan import LaunchPlan
from quadbench.records import open_records

GOOD = "header()\nrun()\npaint_all()\nfooter()\n"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[LocalDevice]:
    with open_local(tmp_path / "results") as opened:
        yield opened


@pytest.fixture
def world(tmp_path: Path, device: LocalDevice) -> World:
    return World(tmp_path / "bundle", device)


def measured(
    world: World, script: str, launch: LaunchPlan | None = None, timeout_s: float = 60.0, run_id: str = "run-1"
) -> RunRecord:
    harness = world.harness(script)
    return measure_launch(
        bundle=world.bundle,
        bundle_folder=world.folder,
        compiled=world.compiled,
        deployment=world.deployment,
        device=world.device,
        launch=launch or launch_of(),
        run_id=run_id,
        harness_sha256=harness,
        runtime_sha256=world.runtime,
        threads=2,
        timeout_s=timeout_s,
        results=world.folder.parent / "results",
    )


def files_of(world: World) -> Path:
    return world.folder.parent / "results/runs/run-1/local/shared-0"


def of_metric(record: RunRecord, metric: str) -> list[Sample]:
    return [sample for sample in record.samples if sample.metric == metric]


def test_a_good_launch_is_a_record_with_everything_needed_to_judge_it(world: World) -> None:
    record = measured(world, GOOD)
    assert (record.status, record.reason, record.error_class) == (Status.OK, None, None)
    assert (record.bundle_digest, record.compiled_digest, record.target) == ("bundle-digest", "compiled-digest", "onnxruntime")
    assert len(of_metric(record, "end_to_end_ns")) == 24
    assert sum(sample.is_warmup for sample in record.samples) == 2
    assert record.versions["harness.commit"] == "abc"
    assert record.versions["quad.torch"] == "2.9"
    assert record.versions["compile.onnxruntime"] == "1.27"
    assert record.started_at < record.ended_at


def test_a_measured_record_is_stored_and_read_back_as_it_is(world: World) -> None:
    record = measured(world, GOOD)
    with open_records(world.folder.parent / "results" / "quadbench.sqlite") as records:
        records.store(record)
        assert records.of_run("run-1") == (record,)


def test_every_line_of_the_harness_is_kept_as_it_came(world: World) -> None:
    measured(world, GOOD + 'print("trailing garbage")')
    lines = (files_of(world) / "events.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 24 + 4 + 1 + 1
    assert lines[-1] == "trailing garbage"


def test_images_are_fetched_checked_and_named_relative_to_the_results(world: World) -> None:
    record = measured(world, GOOD)
    assert set(record.images) == {f"{task}/{item}" for task in TASKS for item in ITEMS}
    assert all((world.folder.parent / "results" / path).is_file() for path in record.images.values())
    psnr = {(s.task, s.item, s.labels["against"]): s.value for s in of_metric(record, "psnr_db")}
    assert len(psnr) == 6
    assert psnr["restyle", "000", "reference"] == PSNR_CAP_DB
    assert psnr["remove-object", "001", "truth"] == pytest.approx(10 * np.log10(255**2 / 16))
    assert [sample.value for sample in of_metric(record, "max_abs_difference")] == [0.0] * 4


def test_the_folder_on_the_device_is_gone_afterwards_and_the_objects_stay(world: World) -> None:
    measured(world, GOOD)
    measured(world, "header()\nsys.exit(3)", run_id="run-2")
    root = Path(world.device.root)
    assert list((root / "runs").iterdir()) == []
    assert all(Path(path).is_file() for path in world.objects.values())


def test_a_crash_keeps_the_samples_before_it_and_names_the_signal(world: World) -> None:
    record = measured(world, "header()\nrun()\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.HARNESS)
    assert record.reason is not None
    assert "harness was killed by signal 11 (SIGSEGV)" in record.reason
    assert "no footer after 25 lines, 24 samples are kept" in record.reason
    assert len(of_metric(record, "end_to_end_ns")) == 24


def test_an_exit_code_without_a_word_is_a_failure_with_the_last_of_stderr(world: World) -> None:
    record = measured(world, 'header()\nprint("cannot map arena", file=sys.stderr)\nsys.exit(3)')
    assert record.reason is not None
    assert "harness was killed or crashed (exit code 3): cannot map arena" in record.reason


def test_a_harness_that_says_what_is_wrong_is_quoted(world: World) -> None:
    script = 'header()\nemit("error", message="session refused", where="unet")\nfooter("FAILED")\nsys.exit(3)'
    record = measured(world, script)
    assert record.reason == "harness failed with exit code 3: unet: session refused"
    assert record.error_class is ErrorClass.HARNESS


def test_a_plan_that_the_harness_refuses_is_the_infrastructures_fault(world: World) -> None:
    record = measured(world, 'emit("error", message="missing", where="unets")\nfooter("FAILED")\nsys.exit(2)')
    assert record.error_class is ErrorClass.INFRASTRUCTURE
    assert record.reason == "harness failed with exit code 2: unets: missing"


def test_a_harness_that_cannot_be_started_is_said_to_be_so(world: World) -> None:
    sha256 = world.harness(GOOD)
    world.device.shell(["chmod", "644", world.objects[sha256]], 10)
    record = measure_launch(
        bundle=world.bundle,
        bundle_folder=world.folder,
        compiled=world.compiled,
        deployment=world.deployment,
        device=world.device,
        launch=launch_of(),
        run_id="run-1",
        harness_sha256=sha256,
        runtime_sha256=world.runtime,
        threads=2,
        timeout_s=60,
        results=world.folder.parent / "results",
    )
    assert record.error_class is ErrorClass.INFRASTRUCTURE
    assert record.reason is not None
    assert record.reason.startswith("harness cannot be started")


def test_a_hanging_harness_is_killed_and_recorded(world: World) -> None:
    began = time.monotonic()
    record = measured(world, "header()\nsample()\ntime.sleep(600)", timeout_s=2)
    assert time.monotonic() - began < 30
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.HARNESS)
    assert record.reason is not None
    assert "harness timed out" in record.reason
    assert len(of_metric(record, "end_to_end_ns")) == 1


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (GOOD.replace("run()", 'print("{not json")\nrun()'), r"line 2 of the harness's output is no event \(Invalid JSON.*"),
        (
            GOOD.replace("run()", "sample(value=float('nan'))\nrun()"),
            r"line 2 of the harness's output is no event \(sample.value:.*",
        ),
        (GOOD.replace("header()\n", ""), r"line 1 of the harness's output is a sample; expected the header first.*"),
        ("header()\nrun()\npaint_all()\n", r"harness wrote no footer, though its exit code is 0; no footer after 29 lines.*"),
        (GOOD.replace("footer()", "footer(samples=25)"), r"harness wrote 25 samples, 24 arrived"),
        (GOOD.replace("footer()", 'footer("FAILED")'), r"harness failed: no reason given"),
        (GOOD.replace("header()", 'header(plan_sha256="0" * 64)'), r"harness ran another plan: sha256 0{64}, expected .*"),
        (GOOD.replace("paint_all()", 'paint("restyle", "000")'), r"harness painted no image restyle/001"),
    ],
)
def test_output_that_cannot_be_trusted_fails_the_launch_and_keeps_its_samples(world: World, script: str, reason: str) -> None:
    record = measured(world, script)
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.HARNESS)
    assert record.reason is not None
    assert re.fullmatch(reason, record.reason)
    assert len(of_metric(record, "end_to_end_ns")) >= 24


def test_a_line_that_is_cut_off_is_named_by_its_number(world: World) -> None:
    record = measured(world, 'header()\nsample()\nsys.stdout.write(\'{"event": "samp\')\nsys.stdout.flush()\nos._exit(1)')
    assert record.reason is not None
    assert "exit code 1" in record.reason
    assert "line 3 of the harness's output is no event" in record.reason


def test_a_float_launch_within_two_steps_of_the_reference_is_ok(world: World) -> None:
    assert measured(world, GOOD.replace("paint_all()", "paint_all(change=2)"), launch_of(Variant.FLOAT)).status is Status.OK


def test_a_float_launch_that_computes_wrongly_fails_with_the_worst_item(world: World) -> None:
    script = GOOD.replace("paint_all()", 'paint_all(change=1)\npaint("restyle", "001", change=9)')
    record = measured(world, script, launch_of(Variant.FLOAT))
    assert record.status is Status.FAILED
    assert record.reason == (
        "parity: restyle/001 differs from the Python reference by 9/255, at most 2/255 allowed (1 of 4 images differ by more)"
    )


def test_a_quantized_launch_may_differ(world: World) -> None:
    record = measured(world, GOOD.replace("paint_all()", "paint_all(everywhere=20)"))
    assert record.status is Status.OK
    assert {sample.value for sample in of_metric(record, "max_abs_difference")} == {20.0}


def test_a_quantized_launch_that_paints_another_picture_is_fast_and_wrong(world: World) -> None:
    record = measured(world, GOOD.replace("paint_all()", "paint_all(everywhere=120)"))
    assert record.status is Status.FAILED
    assert record.reason is not None
    assert record.reason.startswith("fast and wrong: mean PSNR against the reference is 6.5 dB")


def test_an_image_of_another_size_fails_the_launch(world: World) -> None:
    record = measured(world, GOOD.replace("paint_all()", "paint_all(size=(4, 6))"))
    assert record.reason == "image restyle/000 is 4 x 6, its reference is 8 x 8"


def test_an_image_that_changed_on_the_way_fails_the_launch(world: World) -> None:
    announce = 'emit("image", task="restyle", item="000", path=plan["images"] + "/restyle/000.png", sha256="0" * 64)'
    record = measured(world, GOOD.replace("footer()", f"{announce}\nfooter()"))
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.DEVICE)
    assert record.reason is not None
    assert record.reason.startswith("image restyle/000 arrived with sha256")


def test_a_reference_that_is_missing_from_the_bundle_is_not_the_harness_to_blame(world: World) -> None:
    harness_script = GOOD.replace("footer()", '(references / "restyle" / "001.png").unlink()\nfooter()')
    record = measured(world, harness_script)
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.INFRASTRUCTURE)
    assert record.reason is not None
    assert record.reason.startswith("image 'reference/restyle/001.png' of the bundle cannot be read")


def test_ctrl_c_kills_the_harness_and_hands_back_what_it_had_measured(world: World) -> None:
    script = f'header()\nsample()\npathlib.Path("{world.folder}/pid").write_text(str(os.getpid()))\ntime.sleep(600)'
    events = files_of(world) / "events.jsonl"
    heard_both = lambda: (world.folder / "pid").exists() and events.read_text().count("\n") == 2  # noqa: E731
    threading.Thread(target=_interrupt_once, args=(heard_both,), daemon=True).start()
    with pytest.raises(LaunchAborted) as caught:
        measured(world, script)
    record = caught.value.record
    assert isinstance(caught.value, KeyboardInterrupt)
    assert (record.status, record.error_class, record.reason) == (Status.ABORTED, ErrorClass.USER, "interrupted after 1 samples")
    assert len(of_metric(record, "end_to_end_ns")) == 1
    assert not Path(f"/proc/{(world.folder / 'pid').read_text()}").exists()
    assert list((Path(world.device.root) / "runs").iterdir()) == []


def test_rom_is_counted_on_the_device_base_and_adapters_apart(world: World) -> None:
    shared = measured(world, GOOD)
    per_graph = measured(world, GOOD, launch_of(Variant.PER_GRAPH), run_id="run-2")
    assert _rom(shared, "base") == {"text_encoder": 1000, "vae_encoder": 1100, "unet base": 1200, "vae_decoder": 1300}
    assert _rom(shared, "adapter") == {"restyle": 13, "remove-object": 19}
    assert _rom(per_graph, "base") == {
        "text_encoder": 1000,
        "vae_encoder": 1100,
        "unet restyle": 1800,
        "unet remove-object": 1900,
        "vae_decoder": 1300,
    }
    assert _rom(per_graph, "adapter") == {}


def test_a_file_that_is_damaged_on_the_device_fails_the_launch_before_it_starts(world: World) -> None:
    unet = world.graphs[2].file
    Path(world.objects[unet.sha256]).write_bytes(b"cut")
    record = measured(world, GOOD)
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.DEVICE)
    assert record.reason is not None
    assert f"has 3 bytes, expected the {unet.size_bytes} bytes of '{unet.path}'" in record.reason
    assert not (files_of(world) / "events.jsonl").exists()


def test_a_device_that_runs_full_or_away_is_a_failed_record(world: World) -> None:
    (Path(world.device.root) / "runs").write_text("in the way")
    record = measured(world, GOOD)
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.DEVICE)
    assert record.reason is not None
    assert "cannot write" in record.reason


def test_state_stands_in_the_record_before_and_after_and_says_what_is_unavailable(world: World) -> None:
    record = measured(world, GOOD)
    for moment in ("before", "after"):
        assert float(record.state[f"{moment}.load_1min"]) >= 0
        assert int(record.state[f"{moment}.memory_available_bytes"]) > 0
        assert record.state[f"{moment}.thermal_status"] == "unavailable"


def test_caveats_of_a_debug_build_on_this_machine_with_few_images(world: World) -> None:
    record = measured(world, GOOD.replace("header()", 'header(build_type="Debug")'), launch_of(iterations=10))
    assert {Caveat.VIRTUAL_DEVICE, Caveat.DEBUG_BUILD, Caveat.FEW_SAMPLES} <= set(record.caveats)


def test_enough_images_from_a_release_build_carry_no_such_caveat(world: World) -> None:
    caveats = set(measured(world, GOOD).caveats)
    assert Caveat.VIRTUAL_DEVICE in caveats
    assert not {Caveat.DEBUG_BUILD, Caveat.FEW_SAMPLES} & caveats


def test_caveats_of_the_artifacts_pass_into_the_record(world: World) -> None:
    world.bundle = replace(world.bundle, caveats=(Caveat.RANDOM_WEIGHTS,))
    world.compiled = replace(world.compiled, caveats=(Caveat.EMULATED_NPU,))
    assert {Caveat.RANDOM_WEIGHTS, Caveat.EMULATED_NPU} <= set(measured(world, GOOD).caveats)


def test_a_run_id_that_is_no_folder_name_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match=r"run id '\.\./x' cannot name a folder"):
        measured(world, GOOD, run_id="../x")


def test_what_was_not_deployed_is_refused_before_anything_starts(world: World) -> None:
    del world.objects[world.runtime]
    with pytest.raises(ArtifactError, match=r"the runtime library .* is not among the .* deployed files"):
        measured(world, GOOD)
    with pytest.raises(UnknownNameError, match="unknown task 'relight'"):
        measured(world, GOOD, launch_of(tasks=("relight",)))


def test_a_device_that_stays_hot_gives_a_skipped_record_with_its_reason(world: World) -> None:
    harness = world.harness(GOOD)
    script = Path(world.device.root) / "bin" / "dumpsys"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n[ $1 = thermalservice ] && echo 'Thermal Status: 3'\n")
    script.chmod(0o755)
    record = measure_launch(
        bundle=world.bundle,
        bundle_folder=world.folder,
        compiled=world.compiled,
        deployment=world.deployment,
        device=_WithPath(world.device, script.parent),  # type: ignore[arg-type]
        launch=launch_of(),
        run_id="run-1",
        harness_sha256=harness,
        runtime_sha256=world.runtime,
        threads=2,
        timeout_s=60,
        results=world.folder.parent / "results",
        limits=GateLimits(timeout_s=0.2, poll_s=0.1),
    )
    assert (record.status, record.error_class) == (Status.SKIPPED, ErrorClass.DEVICE)
    assert record.reason == "INVALID: thermal status 3 (severe), at most 1 allowed; waited 0.2 s"
    assert record.state["before.thermal_status"] == "3"
    assert record.samples == ()


def test_null_words_of_a_sample_do_not_apply() -> None:
    heard = Heard()
    heard.take(
        json.dumps({"event": "sample", "metric": "rss_bytes", "value": 7, "task": None, "labels": None, "is_warmup": None})
    )
    assert heard.samples == [Sample(metric="rss_bytes", value=7.0)]


@pytest.mark.parametrize(
    "line", ["", "[]", '{"event": "sample"}', '{"event": "farewell"}', '{"event": "sample", "metric": "a"', "null"]
)
def test_a_line_that_is_no_event_is_a_problem_and_not_a_crash(line: str) -> None:
    heard = Heard()
    heard.take(line)
    assert heard.problem is not None
    assert heard.problem.startswith("line 1 of the harness's output is no event")


def test_psnr_of_equal_images_is_capped_and_that_of_others_is_not() -> None:
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert psnr_db(black, black) == PSNR_CAP_DB
    assert psnr_db(black, white) == 0.0
    assert psnr_db(black, black + np.uint8(1)) == pytest.approx(48.1308, abs=1e-4)


def test_differences_do_not_wrap_around() -> None:
    assert max_abs_difference(np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)) == 255


def _rom(record: RunRecord, kind: str) -> dict[str, float]:
    found = [sample for sample in of_metric(record, "rom_bytes") if sample.labels["kind"] == kind]
    return {" ".join(filter(None, (s.component, s.labels.get("unet"), s.labels.get("adapter")))): s.value for s in found}


def _interrupt_once(is_time: Callable[[], bool]) -> None:
    while not is_time():
        time.sleep(0.05)
    time.sleep(0.2)  # the line is in the file just before it is heard
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class _WithPath:
    """A local device whose shell finds the programs of a folder first, as a phone has its dumpsys."""

    def __init__(self, device: LocalDevice, folder: Path) -> None:
        self._device, self._folder = device, folder

    def __getattr__(self, name: str) -> object:
        return getattr(self._device, name)

    def shell(self, argv: list[str], timeout_s: float) -> object:
        return self._device.shell(["env", f"PATH={self._folder}:/usr/bin:/bin", *argv], timeout_s)
