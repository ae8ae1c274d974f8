"""A launch becomes a record whatever becomes of it: what stands in it, and what is refused before anything starts."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted_harness import GOOD, LIBRARIES, SAMPLES, World, files_of, launch_of, measured, of_metric
from support.sentences import raising, reads, says

from quadbench.artifacts import Caveat, ErrorClass, FileRef, RunRecord, Status, Variant
from quadbench.artifacts.caveats import FigureKind
from quadbench.artifacts.kit import Kit, Library, Role, kit_digest
from quadbench.devices.local import LocalDevice, open_local
from quadbench.errors import ArtifactError, UnknownNameError
from quadbench.harness.installation import InstalledKit, execution_provider_of
from quadbench.measure import launch
from quadbench.measure.derived_samples import rom_samples
from quadbench.measure.launch import StopFlag, measure_launch, run_launch
from quadbench.measure.launch_record import LaunchSettings
from quadbench.recipe import Runtime
from quadbench.recipe.settings import Gate
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.target.abi import Abi
from quadbench.target.targets import QnnTarget


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """The record of a launch that has nothing amiss. Its device is closed."""
    folder = tmp_path_factory.mktemp("good")
    with open_local(Layout(folder / "results")) as device:
        return measured(World(folder / "bundle", device), GOOD)


def test_a_good_launch_is_a_record_with_everything_needed_to_judge_it(good: RunRecord) -> None:
    record = good
    assert (record.status, record.reason, record.error_class) == (Status.OK, None, None)
    assert (record.bundle_digest, record.compiled_digest, record.target) == ("b0" * 32, "c0" * 32, "onnxruntime")
    assert len(of_metric(record, "end_to_end_ns")) == 24
    assert sum(sample.is_warmup for sample in of_metric(record, "end_to_end_ns")) == 2
    assert record.versions["harness.commit"] == "abc"
    assert record.versions["quad.torch"] == "2.9"
    assert record.versions["compile.onnxruntime"] == "1.27"
    assert record.started_at < record.ended_at


def test_a_measured_record_is_stored_and_read_back_as_it_is(good: RunRecord, layout: Layout) -> None:
    with open_records(layout.database) as records:
        records.store(good)
        assert records.run_records("run-1") == (good,)


def test_every_line_of_the_harness_is_kept_as_it_came(world: World) -> None:
    measured(world, GOOD + 'print("trailing garbage")')
    lines = (files_of(world) / "events.jsonl").read_text().splitlines()
    assert len(lines) == 1 + SAMPLES + LIBRARIES + 4 + 1 + 1
    assert lines[-1] == "trailing garbage"


def test_the_record_names_the_libraries_that_the_harness_loaded(world: World) -> None:
    record = measured(world, GOOD.replace("run()", 'run()\nemit("library", path="/lib/libc.so.6", build_id="ab" * 20)'))
    assert record.status is Status.OK
    assert record.versions["library.libc.so.6"] == f"/lib/libc.so.6, build id {'ab' * 20}"
    assert sum(name.startswith("library.") for name in record.versions) == LIBRARIES + 1


def test_libraries_of_one_name_in_two_folders_are_both_kept(world: World) -> None:
    record = measured(world, GOOD.replace("run()", 'run()\ntell("/a/libc++_shared.so", "/b/libc++_shared.so")'))
    assert record.versions["library.libc++_shared.so"].startswith("/a/")
    assert record.versions["library./b/libc++_shared.so"].startswith("/b/")


def test_the_folder_on_the_device_is_gone_afterwards_and_the_objects_stay(world: World) -> None:
    measured(world, GOOD)
    measured(world, "header()\nsys.exit(3)", run_id="run-2")
    root = Path(world.device.root)
    assert list((root / "runs").iterdir()) == []
    assert all(Path(path).is_file() for path in world.objects.values())


def test_rom_is_counted_on_the_device_base_and_adapters_apart(world: World, good: RunRecord) -> None:
    per_graph = measured(world, GOOD, launch_of(Variant.PER_GRAPH))
    assert _rom(good, "base") == {"text_encoder": 1000, "vae_encoder": 1100, "unet base": 1200, "vae_decoder": 1300}
    assert _rom(good, "adapter") == {"restyle": 13, "remove-object": 19}
    assert _rom(per_graph, "base") == {
        "text_encoder": 1000,
        "vae_encoder": 1100,
        "unet restyle": 1800,
        "unet remove-object": 1900,
        "vae_decoder": 1300,
    }
    assert _rom(per_graph, "adapter") == {}


@pytest.mark.parametrize(
    ("variant", "unets"),
    [
        (Variant.PATCHED, {"unet restyle": 1800, "unet remove-object": 70}),
        (Variant.CONTEXT_SHARED, {"unet restyle": 1800 + 5000, "unet remove-object": 1900}),
    ],
)
def test_a_file_of_several_tasks_counts_once(world: World, variant: Variant, unets: dict[str, int]) -> None:
    sizes = Counter[str]()
    for sample in rom_samples(world.installation("0" * 64), launch_of(variant)):
        sizes[" ".join(filter(None, (sample.component, sample.labels.get("unet"))))] += int(sample.value)
    assert sizes == {"text_encoder": 1000, "vae_encoder": 1100, "vae_decoder": 1300, **unets}


def test_a_file_that_is_damaged_on_the_device_fails_the_launch_before_it_starts(world: World) -> None:
    unet = world.graphs[2].file
    Path(world.objects[unet.sha256]).write_bytes(b"cut")
    record = measured(world, GOOD)
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.DEVICE)
    assert record.reason is not None
    says(record.reason, 3, unet.size_bytes, unet.path)
    assert not (files_of(world) / "events.jsonl").exists()


def test_a_device_that_runs_full_or_away_is_a_failed_record(world: World) -> None:
    (Path(world.device.root) / "runs").write_text("in the way")
    record = measured(world, GOOD)
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.DEVICE)
    assert record.reason is not None
    says(record.reason)


def test_a_device_with_too_little_space_for_a_launch_says_what_to_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SPACE_BYTES", 2**60)
    record = measured(world, GOOD)
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.DEVICE)
    assert record.reason is not None
    says(record.reason)
    assert not (files_of(world) / "events.jsonl").exists()


def test_state_stands_in_the_record_before_and_after_and_says_what_is_unavailable(good: RunRecord) -> None:
    for moment in ("before", "after"):
        assert float(good.state[f"{moment}.load_1min"]) >= 0
        assert int(good.state[f"{moment}.memory_available_bytes"]) > 0
        assert good.state[f"{moment}.thermal_status"] == "unavailable"


def test_caveats_of_a_debug_build_on_this_machine_with_few_images(world: World) -> None:
    record = measured(world, GOOD.replace("header()", 'header(build_type="Debug")'), launch_of(iterations=10))
    assert {Caveat.THIS_MACHINE, Caveat.DEBUG_BUILD, Caveat.FEW_SAMPLES} <= set(record.caveats)


def test_peaks_that_the_kernel_does_not_let_begin_anew_are_in_doubt(world: World, good: RunRecord) -> None:
    caveats = measured(world, GOOD.replace("header()", "header(peak_reset=False)")).caveats
    assert Caveat.PEAK_SINCE_START in caveats
    assert Caveat.PEAK_SINCE_START.is_about(FigureKind.MEMORY)
    assert not Caveat.PEAK_SINCE_START.is_about(FigureKind.TIME)
    assert Caveat.PEAK_SINCE_START not in good.caveats


def test_enough_images_from_a_release_build_carry_no_such_caveat(good: RunRecord) -> None:
    caveats = set(good.caveats)
    assert Caveat.THIS_MACHINE in caveats
    assert Caveat.VIRTUAL_DEVICE not in caveats
    assert not {Caveat.DEBUG_BUILD, Caveat.FEW_SAMPLES} & caveats


def test_images_that_begin_slower_than_they_go_on_are_a_doubt(world: World, good: RunRecord) -> None:
    slow = """
plain = sample
def sample(metric="end_to_end_ns", value=50_000, **words):
    is_first = metric.endswith("_ns") and words.get("iteration") in (0, 1) and not words.get("is_warmup")
    plain(metric, value * (3 if is_first else 1), **words)
"""
    assert Caveat.STILL_WARMING in measured(world, slow + GOOD).caveats
    assert Caveat.STILL_WARMING not in good.caveats


def test_caveats_of_the_artifacts_pass_into_the_record(world: World) -> None:
    world.bundle = replace(world.bundle, caveats=(Caveat.RANDOM_WEIGHTS,))
    world.compiled = replace(world.compiled, caveats=(Caveat.CPU_FALLBACK,))
    assert {Caveat.RANDOM_WEIGHTS, Caveat.CPU_FALLBACK} <= set(measured(world, GOOD).caveats)


def test_figures_of_the_emulator_carry_their_caveat_and_those_of_other_graphs_do_not(world: World) -> None:
    emulator = execution_provider_of(QnnTarget(backend="qnn", htp_arch="v79", soc_model=69), None)
    assert Caveat.EMULATED_NPU in measured(world, GOOD, execution_provider=emulator).caveats
    floats = measured(world, GOOD, launch_of(Variant.FLOAT), run_id="run-2", execution_provider=emulator)
    assert Caveat.EMULATED_NPU not in floats.caveats


def test_a_run_id_that_is_no_folder_name_is_refused(world: World) -> None:
    with raising(ValueError, "../x"):
        measured(world, GOOD, run_id="../x")


def test_what_was_not_deployed_is_refused_before_anything_starts(world: World) -> None:
    del world.objects[world.runtime]
    with raising(ArtifactError):
        measured(world, GOOD)
    with raising(UnknownNameError, "relight"):
        measured(world, GOOD, launch_of(tasks=("relight",)))


def test_a_device_that_stays_hot_gives_a_skipped_record_with_its_reason(world: World) -> None:
    script = Path(world.device.root) / "bin" / "dumpsys"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n[ $1 = thermalservice ] && echo 'Thermal Status: 3'\n")
    script.chmod(0o755)
    hot = _WithPath(world.device, script.parent)
    limits = Gate(wait_s=0.2)
    record = measured(world, GOOD, device=hot, limits=limits)  # type: ignore[arg-type]
    assert (record.status, record.error_class) == (Status.SKIPPED, ErrorClass.DEVICE)
    reads(record.reason, 3, 1, "0.2")
    assert record.state["before.thermal_status"] == "3"
    assert record.samples == ()


def test_a_device_that_ends_hot_costs_a_launch_that_may_be_repeated_and_is_a_doubt_about_one_that_may_not(world: World) -> None:
    script = Path(world.device.root) / "bin" / "dumpsys"
    script.parent.mkdir()
    hot_after = Path(world.device.root) / "ran"
    script.write_text(f"#!/bin/sh\n[ $1 = thermalservice ] && [ -e {hot_after} ] && echo 'Thermal Status: 3'\nexit 0\n")
    script.chmod(0o755)
    harness = world.harness(f'open("{hot_after}", "w").close()\n{GOOD}')
    installation = world.installation(harness, device=_WithPath(world.device, script.parent))  # type: ignore[arg-type]
    settings = LaunchSettings(run_id="run-1", layout=world.layout, runtime=Runtime(), timeout_s=60)
    discarded = run_launch(installation, launch_of(), settings, StopFlag(), may_discard=True).record
    hot_after.unlink()
    counted = measure_launch(installation, replace(launch_of(), launch=1), settings)
    assert (discarded.status, discarded.error_class) == (Status.DISCARDED, ErrorClass.DEVICE)
    reads(discarded.reason, 3, 1)
    assert (counted.status, counted.reason) == (Status.OK, None)
    assert Caveat.THROTTLED in counted.caveats
    assert len(of_metric(discarded, "end_to_end_ns")) == len(of_metric(counted, "end_to_end_ns"))


def _rom(record: RunRecord, kind: str) -> dict[str, float]:
    found = [sample for sample in of_metric(record, "rom_bytes") if sample.labels["kind"] == kind]
    return {" ".join(filter(None, (s.component, s.labels.get("unet"), s.labels.get("adapter")))): s.value for s in found}


class _WithPath:
    """A local device whose shell finds the programs of a folder first, as a phone has its dumpsys."""

    def __init__(self, device: LocalDevice, folder: Path) -> None:
        self._device, self._folder = device, folder

    def __getattr__(self, name: str) -> object:
        return getattr(self._device, name)

    def shell(self, argv: list[str], timeout_s: float) -> object:
        return self._device.shell(["env", f"PATH={self._folder}:/usr/bin:/bin", *argv], timeout_s)


def test_a_plugin_that_sees_no_npu_has_a_hint_and_a_page(world: World) -> None:
    message = "the plugin library has no device for 'QNNExecutionProvider'"
    script = f'header()\nemit("error", where="runtime.execution_provider", message="{message}")\nsys.exit(2)\n'
    record = measured(world, script)
    assert record.status is Status.FAILED
    reads(record.reason, 2, "QNNExecutionProvider", "docs/troubleshooting.md#the-plugin-sees-no-npu")
    page = (Path(__file__).parents[1] / "docs/troubleshooting.md").read_text()
    assert "### The plugin sees no NPU" in page


def test_a_launch_sets_the_variables_of_its_kit_and_its_record_names_the_libraries(world: World) -> None:
    file = FileRef(path="a", sha256=world.runtime, size_bytes=7)
    library = Library(name="libonnxruntime.so", role=Role.RUNTIME, file=file)
    kit = Kit(digest=kit_digest(Abi.ARM64_V8A, (library,)), abi=Abi.ARM64_V8A, libraries=(library,), versions={}, origins=())
    installed = InstalledKit(folder="/kits/d", kit=kit, libraries=(library,))
    words = 'os.environ["LD_LIBRARY_PATH"], os.environ["ADSP_LIBRARY_PATH"], plan["runtime"]["library"]'
    harness = world.harness(f'header()\nemit("error", message=" ".join([{words}]))\nsys.exit(3)\n')
    settings = LaunchSettings(run_id="run-1", layout=world.layout, runtime=Runtime(), timeout_s=60)
    record = measure_launch(replace(world.installation(harness), kit=installed), launch_of(), settings)
    says(str(record.reason), 3, "/kits/d/libonnxruntime.so")
    assert {name: text for name, text in record.versions.items() if name.startswith("kit")} == {
        "kit": kit.digest,
        "kit.libonnxruntime.so": world.runtime,
    }
