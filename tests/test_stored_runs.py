"""Stored runs on the terminal: the list of them, and one of them again."""

import json
import re
from argparse import Namespace
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from support.scripted_harness import World
from support.sentences import reads, says
from support.stored_run import RUN, store_run
from support.synthetic_run import S25, TABS11, failed, make_run

from quadbench.artifacts import RunRecord, Variant
from quadbench.cli import main
from quadbench.cli.runs import _print_lines
from quadbench.errors import UnknownNameError
from quadbench.report.run_line import run_line
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, load_run, save_run


@pytest.fixture
def results(world: World, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("COLUMNS", "100")
    return store_run(world)


def _store_later(results: Layout) -> None:
    """Store a later run that was killed in its second launch, which failed."""
    records = make_run(results.root.parent / "later", variants=(Variant.FLOAT, Variant.SHARED)).records
    bundle = load_run(results, RUN).stored.folder.name
    save_run(
        results,
        RunFile(run_id="later", bundle=bundle, deployments=(), planned={Variant.SHARED: 2}, swept={"precision.lora": "int8"}),
    )
    with open_records(results.database) as opened:
        for record in (records[0], failed(records[1], "killed")):
            began = record.started_at + timedelta(days=1)
            opened.store(replace(record, record_id=f"later-{record.launch}", run_id="later", started_at=began))


@pytest.mark.parametrize(("variant", "shown"), [(Variant.PER_GRAPH, "per-graph"), (Variant.RESIDENT, ""), (Variant.SHARED, "")])
def test_a_run_of_one_variant_shows_its_time_of_an_image(tmp_path: Path, variant: Variant, shown: str) -> None:
    line = run_line(make_run(tmp_path, variants=(variant, variant)))
    assert line.figure
    reads(line.figure.partition(" ")[2], shown)


def _listed(results: Layout, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["runs", "--results", str(results.root), *words]) == 0
    return capsys.readouterr().out


def test_runs_are_listed_with_what_became_of_them(results: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    _store_later(results)
    answer = json.loads(_listed(results, capsys, "--json"))
    later, first = answer["runs"]
    assert answer["schema_version"] == 1
    assert (first["run_id"], first["status"], first["recipe"]) == (RUN, "ok", "quickstart")
    assert first["devices"] == ["virtual:s25"]
    assert first["figure"].endswith(" per graph")
    assert (later["run_id"], later["status"]) == ("later", "cut short")
    reads(later["reason"], 1, 2)
    shown = _listed(results, capsys)
    assert shown.index("later") < shown.index(RUN)
    says(shown, 1, 2)
    assert later["swept"] == {"precision.lora": "int8"}
    assert "lora=int8" in shown
    *table, next_command = shown.splitlines()
    assert max(map(len, table)) <= 100
    says(next_command, "quadbench show", "--results")
    assert [run["run_id"] for run in json.loads(_listed(results, capsys, "--json", "--limit", "1"))["runs"]] == ["later"]


def test_each_device_of_a_run_stands_with_its_own_time_whatever_the_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slower(record: RunRecord) -> RunRecord:
        factor = 2.0 if record.device == TABS11 else 1.0
        return replace(record, samples=tuple(replace(sample, value=factor * sample.value) for sample in record.samples))

    line = replace(run_line(make_run(tmp_path, devices=(S25, TABS11), change=slower)), run_id="20260102-030405-ab12")
    assert list(line.figures) == list(line.devices) == [S25.address, TABS11.address]
    times = {address: figure.partition(",")[0] for address, figure in line.figures.items()}
    assert len({*times.values()}) == 2
    for columns in ("80", "100", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        _print_lines(Namespace(layout=Layout(tmp_path)), [line])
        shown = capsys.readouterr().out.splitlines()
        assert all(any(address in one and time in one for one in shown) for address, time in times.items()), "\n".join(shown)


def test_a_damaged_run_does_not_hide_the_others(results: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    _store_later(results)
    results.run_file("later").write_text("{")
    later, first = json.loads(_listed(results, capsys, "--json"))["runs"]
    assert (later["status"], first["status"]) == ("damaged", "ok")
    assert "is not JSON" in later["reason"]


def test_a_run_without_its_file_is_passed_over_where_none_is_named(
    results: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # so that no line breaks within a path
    _store_later(results)
    results.run_file("later").unlink()
    assert main(["show", "--results", str(results.root), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["run_id"] == RUN
    says(told.err)
    assert main(["run", "--resume", "later", "--results", str(results.root)]) == 3
    says(capsys.readouterr().err)
    results.run_file(RUN).unlink()
    assert main(["show", "--results", str(results.root)]) == 3
    assert "run.json" in capsys.readouterr().err


def test_without_a_run_the_list_says_how_to_make_one(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    says(_listed(world.layout, capsys), "quadbench run quickstart", "--results", world.layout.root)
    assert json.loads(_listed(world.layout, capsys, "--json"))["runs"] == []


def test_a_run_is_shown_again_within_100_columns_and_nothing_is_written(
    results: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(results.root.rglob("*"))
    for words in ([], [RUN], [RUN, "--full"]):
        assert main(["show", *words, "--results", str(results.root)]) == 0
        shown = capsys.readouterr().out
        says(shown, "virtual:s25")
        assert shown.count("virtual device: ") == 1
        assert max(map(len, shown.splitlines()[:-1])) <= 100  # a command to copy is one line
    assert sorted(results.root.rglob("*")) == before
    reads(shown.splitlines()[-1], "quadbench report", RUN, "--results", results.root)
    assert main(["show", "--json", "--results", str(results.root)]) == 0
    assert json.loads(capsys.readouterr().out)["report"] is None


UNKNOWN = [
    (["show", "20260102-030405-quickstar"], f"unknown run, sweep or comparison .*did you mean '{RUN}' \\(run\\)"),
    (["show", "aaaa"], r"unknown run, sweep or comparison 'aaaa'; known: .*did you mean '20260102-030405-aaaa' \(sweep\)"),
    (["report", "20260102-030405-bbb"], r"did you mean '20260102-030405-bbbb' \(comparison\)"),
    (["report", "phones-2026-01-02"], "is a night; expected a run, sweep or comparison. Hint: .*quadbench history"),
    (["compare", "20260102-030405-quick", "quickstart"], rf"unknown run .*; known: {RUN}\. Hint: did you mean '{RUN}'\?"),
    (["compare", "20260102-030405-aaaa", "quickstart"], "is a sweep; expected a run. Hint: show it: quadbench show 20260102"),
    (["run", "--resume", "20260102-030405-bbbb"], "is a comparison; expected a run"),
]


def test_an_unknown_id_is_answered_with_the_nearest_of_what_the_command_takes(
    results: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("sweeps/20260102-030405-aaaa/sweep.json", "comparisons/20260102-030405-bbbb/comparison.json"):
        (results.root / path).parent.mkdir(parents=True)
        (results.root / path).touch()
    results.night("phones-2026-01-02").mkdir(parents=True)
    for words, said in UNKNOWN:
        assert main([*words, "--results", str(results.root)]) == 2, words
        assert re.search(said, " ".join(capsys.readouterr().err.split())), words


def test_of_many_ids_the_latest_are_listed_and_the_nearest_of_all_is_proposed() -> None:
    error = UnknownNameError("run", "20260101-x", [f"2026{month:02}01-a" for month in range(1, 13)], most=2)
    reads(error.message, "20260101-x", 2, 12, "20261101-a", "20261201-a")
    reads(error.hint, "20260101-a")
