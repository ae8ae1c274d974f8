"""What is stored of a run: values that nothing measures are refused, and which run is the latest that came to its end."""

import json
import sqlite3
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from support.scripted_harness import World
from support.sentences import raising, reads, says
from support.stored_run import RUN, store_run
from support.synthetic_run import failed, make_run

from quadbench.artifacts import ErrorClass, RunRecord, Sample, Status, Variant
from quadbench.artifacts.launch_values import value_fault
from quadbench.cli import main
from quadbench.errors import ArtifactError, DeviceError, HarnessError
from quadbench.pipeline import RunOutcome
from quadbench.report.view import RunSummary
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, load_run, save_run

WRONG = (
    ("unet_ns", 0.0), ("unet_ns", -1.0), ("unet_ns", 1e308), ("unet_ns", float("nan")), ("residual_ns", -1.0),
    ("rom_bytes", -1.0), ("rss_bytes", 1e300), ("psnr_db", float("inf")), ("max_abs_difference", 1e300),
    ("unet_ns", 5e-324), ("residual_ns", 1e-300), ("rom_bytes", 1e-9),
    ("peak_rss_bytes", 0.0), ("pss_bytes", 0.0),
)  # fmt: skip


def test_what_nothing_measures_is_not_stored(tmp_path: Path) -> None:
    (record,) = make_run(tmp_path, variants=(Variant.SHARED,), iterations=1).records
    with open_records(tmp_path / "db.sqlite") as records:
        for metric, value in WRONG:
            wrong = replace(record, samples=(*record.samples, Sample(metric=metric, value=value)))
            with raising(ArtifactError, metric, f"{value:g}"):
                records.store(wrong)
            assert records.run_ids() == [], (metric, value)
        records.store(record)
        assert records.run_ids() == [record.run_id]


@pytest.mark.parametrize(("metric", "value"), [("residual_ns", 0.0), ("rom_bytes", 0.0), ("psnr_db", -3.0), ("unet_ns", 1.0)])
def test_what_may_be_measured_is_plausible(metric: str, value: float) -> None:
    assert value_fault(metric, value) is None


@pytest.fixture
def old_run(world: World) -> Layout:
    """A results folder with a run of a bundle, whose records can be made old."""
    return store_run(world)


def test_the_terminal_ends_with_the_result_in_words(old_run: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", RUN, "--results", str(old_run.root)]
    assert main(words) == 0
    short = capsys.readouterr().out
    assert short.index("Ratio") < short.index("On virtual:s25 one base with LoRAs takes")
    assert short.splitlines()[-1].startswith("report: ")
    assert "VAE decoder" not in short
    assert main([*words, "--full"]) == 0
    assert "VAE decoder" in capsys.readouterr().out


def test_json_is_what_the_summary_says(old_run: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", RUN, "--results", str(old_run.root), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    summary = TypeAdapter(RunSummary).validate_python(answer)
    assert (summary.schema_version, summary.run_id, len(summary.records)) == (2, RUN, 5)
    assert set(answer) == {field.name for field in fields(RunSummary)}
    says(summary.headline, "virtual:s25")


def test_the_latest_run_is_the_latest_that_was_not_interrupted(old_run: Layout, caplog: pytest.LogCaptureFixture) -> None:
    (record,) = make_run(old_run.root.parent / "later", variants=(Variant.SHARED,)).records
    later = RunFile(run_id="later", bundle=load_run(old_run, RUN).stored.folder.name, deployments=(), is_ended=True)
    save_run(old_run, later)
    with open_records(old_run.database) as records:
        ended = {"record_id": "later", "run_id": "later", "started_at": record.started_at + timedelta(days=1)}
        records.store(replace(record, **ended, status=Status.ABORTED, error_class=ErrorClass.USER, reason="interrupted"))
    assert load_run(old_run).run_id == RUN
    assert load_run(old_run, "later").run_id == "later"
    with sqlite3.connect(old_run.database) as database:
        database.execute("UPDATE records SET status = 'ABORTED'")
    database.close()
    assert load_run(old_run).run_id == "later"
    says(caplog.text)


def test_a_block_with_a_discarded_launch_counts_on_neither_side(old_run: Layout) -> None:
    bundle = load_run(old_run, RUN).stored.folder.name
    save_run(old_run, RunFile(run_id="hot", bundle=bundle, deployments=(), is_ended=True))
    first, *_ = make_run(old_run.root.parent / "hot").records
    compared = (Variant.SHARED, Variant.PER_GRAPH)
    launches = [(Variant.FLOAT, 0), *((variant, launch) for launch in range(4) for variant in compared)]
    with open_records(old_run.database) as records:
        for number, (variant, launch) in enumerate(launches):
            is_hot = (variant, launch) == (Variant.PER_GRAPH, 1)
            how = {"status": Status.DISCARDED, "error_class": ErrorClass.DEVICE, "reason": "thermal"} if is_hot else {}
            key = {"record_id": f"hot-{number}", "run_id": "hot", "variant": variant, "launch": launch}
            records.store(replace(first, **key, **how))
    stored = load_run(old_run, "hot").records
    counted = [(record.variant, record.launch) for record in stored if record.status is Status.OK]
    assert counted == [(Variant.FLOAT, 0), *((variant, launch) for launch in (2, 3) for variant in compared)]
    mate = next(record for record in stored if (record.variant, record.launch) == (Variant.SHARED, 0))
    reads(mate.reason, 1, "per-graph")


def test_a_run_that_was_killed_is_not_the_latest_and_says_how_far_it_came(
    old_run: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = make_run(old_run.root.parent / "later", variants=(Variant.FLOAT,)).records
    planned = {Variant.FLOAT: 1, Variant.SHARED: 2, Variant.PER_GRAPH: 2}
    bundle, devices = load_run(old_run, RUN).stored.folder.name, make_run(old_run.root.parent / "devices").deployments
    killed = RunFile(run_id="later", bundle=bundle, deployments=devices, planned=planned)
    save_run(old_run, killed)
    with open_records(old_run.database) as records:
        records.store(replace(record, record_id="later", run_id="later", started_at=record.started_at + timedelta(days=1)))
    assert load_run(old_run).run_id == RUN
    assert main(["report", "later", "--results", str(old_run.root)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    says(said, 1, 5)
    assert "have no samples" not in said
    assert "does not request" not in said
    save_run(old_run, replace(killed, is_ended=True))
    assert (load_run(old_run).run_id, load_run(old_run).planned) == ("later", planned)


def outcome_of(folder: Path, *changes: tuple[Status, ErrorClass | None]) -> RunOutcome:
    result = make_run(folder, variants=(Variant.SHARED,) * len(changes))

    def changed(record: RunRecord, change: tuple[Status, ErrorClass | None]) -> RunRecord:
        return record if change[0] is Status.OK else replace(failed(record, "x"), status=change[0], error_class=change[1])

    records = tuple(changed(record, change) for record, change in zip(result.records, changes, strict=True))
    return RunOutcome(result=replace(result, records=records), report=folder, failures={})


LOST, CRASHED = (Status.FAILED, ErrorClass.DEVICE), (Status.FAILED, ErrorClass.HARNESS)
GOOD = (Status.OK, None)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([GOOD, GOOD], 0),
        ([GOOD, LOST, LOST], DeviceError.exit_code),
        ([CRASHED, LOST], HarnessError.exit_code),
        ([GOOD, CRASHED], HarnessError.exit_code),
        ([(Status.SKIPPED, ErrorClass.DEVICE)], DeviceError.exit_code),
    ],
)
def test_a_run_ends_with_the_code_of_its_first_failure(
    tmp_path: Path, changes: list[tuple[Status, ErrorClass | None]], code: int
) -> None:
    assert outcome_of(tmp_path, *changes).exit_code == code


def test_a_run_s_file_with_an_odd_value_is_damage_and_is_named(old_run: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    path = old_run.run_file(RUN)
    whole = json.loads(path.read_text())
    changes: list[tuple[dict[str, object], str]] = [
        ({"schema_version": 99}, "has schema_version 99; expected 1"),
        ({"schema_version": True}, "has schema_version True; expected 1"),
        ({"is_ended": "yes"}, "is_ended"),
        ({"planned": {"shared": "3"}}, "planned"),
    ]
    for change, reason in changes:
        path.write_text(json.dumps(whole | change))
        assert main(["report", RUN, "--results", str(old_run.root)]) == 3, change
        said = " ".join(capsys.readouterr().err.split())
        assert str(path) in said
        assert reason in said
