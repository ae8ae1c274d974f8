"""Two sides are told apart where they differ, and only there; what cannot be compared is refused before anything runs."""

import json
import platform
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.sentences import raising, reads, says
from support.stored_run import RUN, stored_below
from support.synthetic_run import S25, make_run
from support.watcher import Silent

from quadbench.artifacts import (
    LORA_PREFIX,
    Bundle,
    Caveat,
    Component,
    Graph,
    RunRecord,
    StoredCompiled,
    TaskAssets,
    TensorSpec,
    Variant,
)
from quadbench.artifacts.night_record import differing_values, environment_differences, workload
from quadbench.cli import main
from quadbench.compile import availability
from quadbench.devices.addresses import parse_addresses
from quadbench.errors import MissingDependencyError, UserError
from quadbench.recipe import Measure, Runtime
from quadbench.report.comparison_charts import forest_plot
from quadbench.report.formatting import Unit
from quadbench.report.versus import (
    ALL_TASKS,
    PRIMARY,
    Side,
    SideRow,
    Versus,
    VersusDevice,
    VersusSide,
    common_tasks,
    compare_key,
    exact_sentences,
    interleaved_rows,
    replan_looks,
    sentence,
    side_table,
    sides_of_blocks,
)
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import load_run, read_run_file, save_run
from quadbench.statistics import Looks, Verdict
from quadbench.statistics.launch_comparison import Comparison
from quadbench.statistics.multiple_testing import LOOKS
from quadbench.study.run_comparison import DEFAULTS, CompareOptions, _save_on_interrupt, compare, measure_for, side_of
from quadbench.target.targets import OnnxRuntimeTarget, target_key

BLOCKS = 6


@cache
def blocks_of(slower: float) -> tuple[list[list[RunRecord]], tuple[TaskAssets, ...]]:
    """Blocks A B B A of launches that differ a little, with every time of B `slower` times as long."""
    with TemporaryDirectory() as folder:
        result = make_run(Path(folder), variants=(Variant.SHARED,))
    (record,) = result.records

    def launch(side: int, number: int) -> RunRecord:
        factor = (slower if side else 1.0) * (1 + 0.002 * (number % 3))
        samples = [replace(s, value=s.value * factor) if s.metric.endswith("_ns") else s for s in record.samples]
        return replace(record, launch=number, samples=tuple(samples))

    return [[launch(side, 2 * n + k) for side, k in ((0, 0), (1, 0), (1, 1), (0, 1))] for n in range(BLOCKS)], result.bundle.tasks


@cache
def sides(slower: float) -> tuple[Side, Side]:
    blocks, tasks = blocks_of(slower)
    return sides_of_blocks(blocks, tasks, tasks)


@pytest.mark.parametrize(("slower", "verdict"), [(1.05, Verdict.WORSE), (0.95, Verdict.BETTER), (1.0, Verdict.SAME)])
def test_a_side_that_takes_longer_is_found_and_one_that_does_not_is_not(slower: float, verdict: Verdict) -> None:
    a, b = sides(slower)
    told = compare_key(a, b, PRIMARY, ALL_TASKS, LOOKS)
    assert told is not None
    assert told.ratio == pytest.approx(slower, rel=0.001)
    assert told.verdict is verdict


def test_rows_judge_times_and_leave_what_is_exact_to_itself() -> None:
    rows = device(1.05).rows
    assert (rows[0].task, rows[0].key) == (ALL_TASKS, "end_to_end")
    by_key = {(row.task, row.key): row for row in rows}
    unet, rom = by_key["restyle", "unet_step"], by_key["restyle", "foundation_rom"]
    assert unet.comparison is not None
    assert unet.comparison.verdict is Verdict.WORSE
    assert rom.comparison is None
    assert rom.a is not None
    assert rom.a.value == (rom.b.value if rom.b else None)
    assert ("draw", "lora_rom") not in by_key  # it runs no adapter


def test_only_tasks_that_are_wanted_are_compared_and_their_mean_stands_for_all(tmp_path: Path) -> None:
    bundle = make_run(tmp_path).bundle
    first, second = bundle.tasks[:2]
    assert common_tasks(bundle, bundle) == (bundle.tasks, bundle.tasks)
    assert common_tasks(bundle, bundle, wanted=(second.name, first.name)) == ((first, second), (first, second))


def test_a_launch_without_times_leaves_nothing_to_compare() -> None:
    blocks, tasks = blocks_of(1.0)
    emulated = [[replace(record, caveats=(Caveat.EMULATED_NPU,)) for record in block] for block in blocks]
    a, b = sides_of_blocks(emulated, tasks, tasks)
    assert compare_key(a, b, PRIMARY, ALL_TASKS, LOOKS) is None
    with raising(ValueError):
        replan_looks(a, b, 0.03)
    assert all(row.comparison is None for row in interleaved_rows(S25, a, b, LOOKS) if row.key == "end_to_end")


def test_a_plan_follows_from_the_spread_that_was_seen() -> None:
    planned = replan_looks(*sides(1.0), 0.03)
    assert planned == Looks(at=(6,), margin=0.015, is_planned=True)


@cache
def judged_rows(slower: float) -> tuple[SideRow, ...]:
    return interleaved_rows(S25, *sides(slower), LOOKS)


def device(slower: float, **changes: Any) -> VersusDevice:
    rows = judged_rows(slower)
    plain = VersusDevice(device=S25, blocks=BLOCKS, looks=LOOKS, rows=rows, differences={}, caveats=())
    return replace(plain, **changes)


def test_the_result_is_said_first_with_its_interval_and_verdict() -> None:
    said = sentence(device(1.05))
    says(said, "virtual:s25", "5.0", 6, 218, 229)
    says(sentence(device(1.0)), "2.0")
    loaded = sentence(device(1.05, caveats=(Caveat.STILL_WARMING, Caveat.THIS_MACHINE, Caveat.LOADED_HOST)))
    says(loaded)
    broken = sentence(device(1.0, broken="the phone is hot"))
    says(broken)
    slower = sentence(device(1.05, looks=None))
    says(slower, "virtual:s25", "5.0")
    stored = sentence(device(1.0, looks=None))
    says(stored, "virtual:s25")


def test_it_is_said_whether_bytes_and_pictures_are_the_same_and_which_tasks_one_side_alone_has() -> None:
    one = device(1.05, looks=None)
    a, b = (VersusSide(source=name, changes={}, variant=Variant.SHARED, run_id=name) for name in "ab")
    versus = Versus(comparison_id="c", a=a, b=replace(b, own_tasks=("mine",)), to_see=None, devices=(one,), failures={})
    tasks = " and ".join(dict.fromkeys(row.task for row in one.rows if row.is_exact))
    reads(exact_sentences(versus), tasks)
    place = next(place for place, row in enumerate(one.rows) if row.key == "lora_rom")
    larger = one.rows[place]
    assert larger.b
    rows = [*one.rows[:place], replace(larger, b=replace(larger.b, value=larger.b.value + 1)), *one.rows[place + 1 :]]
    changed = replace(versus, b=b, devices=(replace(one, rows=tuple(rows)),))
    reads(exact_sentences(changed), larger.task)


def test_a_table_has_a_line_for_each_figure() -> None:
    table = side_table(device(1.05))
    reads(table.rows[0][:2], ALL_TASKS)
    assert table.rows[0][-1] == "WORSE"
    assert {row[-1] for row in table.rows} >= {"WORSE", "exact"}


def judged(ratio: float, low: float, high: float, verdict: Verdict) -> SideRow:
    told = Comparison(blocks=6, ratio=ratio, low=low, high=high, sign_flip_p=0.03, verdict=verdict, blocks_needed=None)
    return SideRow(
        device=S25, task="restyle", key="end_to_end", title="End to end", unit=Unit.MILLISECONDS, a=None, b=None, comparison=told
    )


def drawn(*rows: SideRow) -> list[str]:
    looked_at = VersusDevice(device=S25, blocks=BLOCKS, looks=LOOKS, rows=rows, differences={}, caveats=())
    side = VersusSide(source="quickstart", changes={}, variant=Variant.SHARED, run_id="1")
    whole = Versus(comparison_id="1", a=side, b=side, to_see=None, devices=(looked_at,), failures={})
    return [row.drawn for row in forest_plot(whole).rows[S25.address]]


def test_the_scale_reaches_every_decided_interval_and_what_is_cut_of_others_ends_in_an_arrow() -> None:
    better, unknown = drawn(judged(0.5, 0.4, 0.6, Verdict.BETTER), judged(1.1, 0.7, 9.0, Verdict.INCONCLUSIVE))
    assert "<circle" in better
    assert "<path" not in better
    assert unknown.count("<path") == 1
    (huge,) = drawn(judged(30.0, 20.0, 40.0, Verdict.WORSE))
    assert "<circle" not in huge


def test_what_else_differs_is_named(tmp_path: Path) -> None:
    (record,) = make_run(tmp_path, variants=(Variant.SHARED,)).records
    first = replace(record, versions={"harness": "1", "numpy": "1"}, settings={"runtime.threads": "2"}, state={})
    state = {"before.clocks": "policy0 1000/2000/3000 kHz"}
    few = tuple(sample for sample in first.samples if sample.iteration != 3)
    assert ("restyle: images", ("11 after 2", "10 after 2")) in environment_differences(
        [first], [replace(first, samples=few)]
    ).items()
    second = replace(first, versions={"harness": "1", "numpy": "2"}, settings={"runtime.threads": "1"}, state=state)
    assert environment_differences([first], [second]) == {
        "clocks up to, kHz": ("none", "policy0 2000/3000"),
        "runtime.threads": ("2", "1"),
    }
    assert environment_differences([first, second], [second, first]) == {}


def test_what_the_sides_compute_is_named_where_it_differs(tmp_path: Path) -> None:
    bundle = make_run(tmp_path, variants=(Variant.SHARED,)).bundle
    first, *others = bundle.tasks
    faster = replace(first, steps=4, items=first.items[:1])
    a, b = workload(bundle, bundle.tasks), workload(replace(bundle, precision="w8a8"), (faster, *others))
    differing = differing_values([a], [b])
    assert differing["precision"] == ("w8a16", "w8a8")
    assert differing["restyle: sampler"] == ("olss, 8 steps, guidance 3", "olss, 4 steps, guidance 3")
    assert [side.partition(",")[0] for side in differing["restyle: inputs"]] == ["2", "1"]
    assert set(differing) == {"precision", "restyle: sampler", "restyle: inputs"}


def test_the_bits_of_lora_inputs_are_named_where_they_differ(tmp_path: Path) -> None:
    bundle = make_run(tmp_path, variants=(Variant.SHARED,)).bundle

    def of(dtype: str) -> Bundle:
        inputs = (TensorSpec(name=f"{LORA_PREFIX}a", shape=(1,), dtype=dtype),)
        file = bundle.tasks[0].table
        graph = Graph(variant=Variant.SHARED, component=Component.UNET, file=file, inputs=inputs, outputs=())
        return replace(bundle, digest=f"{dtype}-{bundle.digest}", graphs=(graph,))

    differing = differing_values([workload(of("int16"), bundle.tasks)], [workload(of("int8"), bundle.tasks)])
    assert differing["LoRA inputs"] == ("int16", "int8")
    assert set(differing) == {"LoRA inputs", "bundle"}


@pytest.fixture
def old_run(tmp_path: Path) -> Layout:
    return stored_below(tmp_path)


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A results folder with that run, in which nothing may be written."""
    return stored_below(tmp_path_factory.mktemp("kept"))


def test_stored_runs_stand_beside_each_other_without_a_verdict(old_run: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", RUN, RUN, "--b", "variant=per-graph", "--results", str(old_run.root)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    says(shown)
    assert not any(verdict.value in shown for verdict in Verdict)
    says(shown, "quickstart", "per-graph", RUN)
    data, report = (Path(line.partition(": ")[2]) for line in shown.splitlines()[-2:])
    assert (data.name, report.name) == ("comparison.json", "comparison.html")
    assert json.loads(data.read_text())["sentences"][0] in " ".join(report.read_text().split())
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert all(row["comparison"] is None for row in document["devices"][0]["rows"])
    assert f"quadbench compare {RUN} {RUN} --b variant=per-graph" in report.read_text()
    assert main(["report", document["comparison_id"], "--format", "markdown", "--results", str(old_run.root)]) == 0
    assert "B: quickstart, per-graph" in capsys.readouterr().out
    assert main(["report", document["comparison_id"], "--format", "csv", "--results", str(old_run.root)]) == 0
    assert capsys.readouterr().out.startswith("device,task,figure,unit,a,b,ratio,low,high,verdict,run_a,run_b\n")


def test_a_run_is_measured_again_as_it_was_measured_before(old_run: Layout) -> None:
    begun = read_run_file(old_run, RUN)
    save_run(old_run, replace(begun, measure=Measure(iterations=3), runtime=Runtime(threads=1), swept={"lora": "int8"}))
    chosen = side_of(RUN, {"variant": "per-graph"}, old_run)
    assert (chosen.terms.measure.iterations, chosen.terms.runtime.threads) == (3, 1)
    assert chosen.terms.swept == {"lora": "int8"}
    assert measure_for(chosen, side_of(str(load_run(old_run, RUN).stored.folder), {}, old_run)).iterations == 3
    assert chosen.name == f"{RUN} with variant=per-graph"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing-of-the-kind"], ("nothing-of-the-kind",)),
        (
            ["quickstart", "--b", "runtime.thread=1"],
            ("quickstart.yaml", "runtime.thread=1", "threads"),
        ),
        (["quickstart", "--b", "runtime.threads"], ("runtime.threads", "KEY=VALUE")),
        (["quickstart", "--b", "kit=a", "--b", "kit=b"], ()),
        (["quickstart", "--b", "variant=merged"], ("merged",)),
        (
            ["quickstart", "--b", "measure.iterations=3"],
            ("measure.iterations", 4, 3),
        ),
        ([RUN, "--b", "runtime.threads=1"], (RUN, "runtime.threads")),
        ([RUN, RUN, "--b", "variant=resident"], ("virtual:s25",)),
        ([RUN, RUN], (RUN,)),
        ([RUN, RUN, "--b", "variant=per-graph", "--a", "harness=/bin/ls"], ()),
        ([RUN, RUN, "--b", "variant=per-graph", "--to-see", "3"], ("--to-see",)),
        (
            ["quickstart", "--b", "tasks.0.name=x", "--b", "tasks.1.name=y"],
            ("restyle", "remove-object"),
        ),
        ([RUN, "quickstart", "--devices", "virtual:nothing"], ("nothing",)),
    ],
)
def test_what_cannot_be_compared_is_refused(
    kept_run: Layout, capsys: pytest.CaptureFixture[str], words: list[str], said: tuple[object, ...]
) -> None:
    assert main(["compare", *words, "--results", str(kept_run.root)]) == 2
    says(capsys.readouterr().err, *said)
    assert not (kept_run.root / "comparisons").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [("harness=/nowhere", "/nowhere"), ("kit=0123", "0123")],
)
def test_a_harness_or_kit_that_a_device_cannot_use_is_refused_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, said: str
) -> None:
    assert main(["compare", "quickstart", "--b", change, "--devices", "local", "--results", str(tmp_path)]) == 2
    says(capsys.readouterr().err, said)
    assert not (tmp_path / "bundles").exists()


def test_graphs_that_were_compiled_elsewhere_need_no_compiler_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "package_availability", lambda *_, **__: availability.Availability(missing="a compiler"))
    a, b = side_of("quickstart", {}, Layout(tmp_path)), side_of("quickstart", {"harness": "/nowhere"}, Layout(tmp_path))
    with raising(MissingDependencyError, "local"):
        compare(a, b, parse_addresses(["local"]), layout=Layout(tmp_path), observer=Silent())
    key = target_key(OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu"), platform.machine())
    elsewhere = CompareOptions(compiled={("d" * 64, key): cast(StoredCompiled, None)})
    with raising(UserError, "/nowhere"):
        compare(a, b, parse_addresses(["local"]), elsewhere, layout=Layout(tmp_path), observer=Silent())


@pytest.mark.slow
def test_a_side_with_more_steps_is_found_to_take_longer_on_a_device(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", str(tiny_recipe), "--b", "tasks.2.sampler.steps=12", "--devices", "local", "--json"]
    assert main([*words, "--to-see", "50%", "--results", str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)
    (on_device,) = document["devices"]
    row = next(row for row in on_device["rows"] if (row["task"], row["key"]) == ("imagine", "end_to_end"))
    assert row["comparison"]["verdict"] == "WORSE"
    assert row["comparison"]["ratio"] > 1.5
    assert on_device["looks"]["margin"] == pytest.approx(0.25)
    assert json.loads(next(tmp_path.glob("comparisons/*/comparison.json")).read_text())["comparison_id"]
    for side in "ab":
        assert main(["report", document[side]["run_id"], "--results", str(tmp_path)]) == 0


@pytest.mark.slow
def test_ctrl_c_keeps_both_runs_and_what_their_whole_blocks_come_to(tiny_recipe: Path, tmp_path: Path) -> None:
    words = ["compare", str(tiny_recipe), "--b", "runtime.threads=2", "--devices", "local", "--results", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "quadbench", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if "5 of 64): OK" in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130
    (path,) = tmp_path.glob("comparisons/*/comparison.json")
    document = json.loads(path.read_text())
    (on_device,) = document["devices"]
    assert on_device["blocks"] == 1
    reads(on_device["broken"], "it was interrupted")
    assert path.with_suffix(".html").is_file()
    for side in "ab":
        assert document[side]["run_id"] in rest
        assert load_run(Layout(tmp_path), document[side]["run_id"]).is_cut_short


def test_on_ctrl_c_a_device_that_was_through_is_not_called_interrupted_and_who_was_left_out_is_named(tmp_path: Path) -> None:
    side = SimpleNamespace(source="quickstart", changes={}, variant=Variant.SHARED, tasks=("restyle",))
    told = device(1.0)
    over, open_ = SimpleNamespace(is_over=True, broken="too hot"), SimpleNamespace(is_over=False, broken=None)
    plans = [SimpleNamespace(launches=one, result=lambda one=one: replace(told, broken=one.broken)) for one in (over, open_)]
    means = SimpleNamespace(work=DEFAULTS, layout=Layout(tmp_path))
    prepared = SimpleNamespace(run_file=SimpleNamespace(run_id="r"), comparison_side=side)
    sides, failures = [prepared] * 2, {"tabs11": UserError("it is gone")}
    with pytest.raises(KeyboardInterrupt), _save_on_interrupt(sides, plans, means, failures):
        raise KeyboardInterrupt
    document = json.loads(next(tmp_path.glob("comparisons/*/comparison.json")).read_text())
    reads([one["broken"] for one in document["devices"]])
    assert document["failures"] == {"tabs11": "it is gone"}


def test_a_side_alone_is_not_compared_with_itself_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "quickstart", "--devices", "local"]) == 2
    says(capsys.readouterr().err, "quickstart")
