"""History says since when a figure is as it is, and with which files; what people say about it stands for a while."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa
from support.histories import REGRESSION, SLOWER
from support.night_series import NEW, OLD, TASK, around, night, night_id, scored, steady, together
from support.printed_schemas import schema
from support.sentences import says
from support.watcher import Silent

from quadbench.artifacts.night_record import Measurement, Ruling, RulingKind, Subject
from quadbench.cli import main
from quadbench.nightly.history import bisect, case_history, segments, subjects_of, tables
from quadbench.nightly.history_chart import history_chart
from quadbench.report.night import value_words
from quadbench.report.versus import ALL_TASKS
from quadbench.results.engine import open_engine
from quadbench.results.layout import Layout
from quadbench.results.nights import NightStore
from quadbench.study.run_comparison import side_of
from quadbench.target.profile import LOCAL_NAME

TIME = (TASK, "end_to_end")


def store(folder: Path, nights: Sequence[Measurement], rulings: Sequence[Ruling] = ()) -> Path:
    """A results folder with some nights."""
    folder.mkdir(exist_ok=True)
    engine = open_engine(folder / "quadbench.sqlite")
    store = NightStore(engine)
    for one in nights:
        store.begin(one.night, "phones", "0.1", [])
        store.store(one)
    store.add(rulings)
    engine.dispose()
    return folder


@pytest.fixture(scope="module")
def slower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with nights of which the latest are slower. Not to be changed."""
    return store(tmp_path_factory.mktemp("slower"), SLOWER, [REGRESSION])


def rulings_in(folder: Path) -> tuple[Ruling, ...]:
    engine = open_engine(folder / "quadbench.sqlite")
    rulings = NightStore(engine).rulings_of("restyle-s25")
    engine.dispose()
    return rulings


def history(folder: Path, *words: str) -> int:
    return main(["history", *words, "--results", str(folder)])


def test_a_shift_begins_a_segment_that_names_the_files_which_changed() -> None:
    first, second = segments(SLOWER, TIME)
    assert (first.nights, second.first, second.nights) == (20, night_id(20), 10)
    assert second.change == pytest.approx(0.07, abs=0.01)
    assert second.changed == {"files": (OLD.bundle, NEW.bundle)}


def test_another_environment_begins_a_segment_and_so_does_another_yardstick() -> None:
    updated = [around(night(number, 1.5), Android="17") for number in range(20, 25)]
    renewed = [replace(around(night(number, 3.0), Android="17"), yardstick="e" * 64) for number in range(25, 30)]
    told = segments([*steady(20), *updated, *renewed], TIME)
    assert [one.nights for one in told] == [20, 5, 5]
    assert list(told[1].changed) == ["Android"]
    assert (list(told[2].changed), told[2].change) == (["yardstick"], None)


def test_the_list_has_each_case_with_where_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = store(tmp_path, SLOWER, [replace(REGRESSION, night=night_id(29))])
    assert history(folder, "--json") == 0
    (line,) = json.loads(capsys.readouterr().out)["cases"]
    assert (line["case"], line["address"], line["kinds"]) == ("restyle-s25", "s25", ["REGRESSION"])
    assert line["segment"]["first"] == night_id(20)
    assert history(folder) == 0
    assert "REGRESSION" in capsys.readouterr().out


def test_a_case_is_printed_as_its_schema_says(slower: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(slower, REGRESSION.case, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    jsonschema.validate(printed, schema("history"), cls=jsonschema.Draft202012Validator)
    assert (printed["case"], printed["devices"][0]["case"]) == (REGRESSION.case, REGRESSION.case)


def test_the_list_has_of_each_case_and_device_its_own_rulings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [replace(SLOWER[-1], case="other"), replace(SLOWER[-1], device="adb:other", address="other")]
    store(tmp_path, [*SLOWER, *others], [replace(REGRESSION, night=SLOWER[-1].night)])
    assert history(tmp_path, "--json") == 0
    lines = json.loads(capsys.readouterr().out)["cases"]
    kinds = {(line["case"], line["device"]): line["kinds"] for line in lines}
    mine = (SLOWER[-1].case, SLOWER[-1].device)
    assert kinds == {mine: ["REGRESSION"], ("other", mine[1]): [], (mine[0], "adb:other"): []}


def test_the_list_reads_as_much_however_many_nights_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def read(count: int) -> tuple[int, int]:
        folder = store(tmp_path / str(count), [night(number, 1.5) for number in range(count)])
        statements = list[str]()

        def note(*words: Any) -> None:
            statements.append(words[2])

        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        try:
            assert history(folder, "--json") == 0
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)
        (line,) = json.loads(capsys.readouterr().out)["cases"]
        return len(statements), line["segment"]["nights"]

    assert read(40) == read(80)


def test_a_case_is_told_with_its_segments_rulings_and_words_the_result_last(
    slower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert history(slower, "restyle-s25") == 0
    out = capsys.readouterr().out
    says(out, "7.0")
    last = out.strip().splitlines()[-1]
    says(last, "restyle-s25", night_id(20), "7.3")


def test_scores_of_pictures_are_told_under_their_metrics_names() -> None:
    nights = [scored(one, st_lpips=0.1) for one in steady(3)]
    table, *_ = tables(case_history(nights, (), (), is_whole=True))
    (row,) = (row for row in table.rows if row[0] == f"ST-LPIPS, {TASK}")
    assert row[4] == "0.1"
    assert value_words(nights[-1].points[-1]) == "0.100"


def test_a_distance_that_rises_from_none_and_falls_back_has_segments_and_a_chart() -> None:
    levels = [0.0] * 12 + [0.02] * 3 + [0.0] * 3
    nights = [scored(night(n, 1.5), st_lpips=level) for n, level in enumerate(levels)]
    told = case_history(nights, (), (), is_whole=True)
    table, *_ = tables(told)
    rows = [row for row in table.rows if row[0] == f"ST-LPIPS, {TASK}"]
    assert [row[3:6] for row in rows] == [("12", "0", "–"), ("3", "0.02", "worse"), ("3", "0", "100.0 % better")]
    figure = next(one for one in told.figures if one.key == "st_lpips")
    for shown in (nights, nights[:12]):
        chart = history_chart(figure, told, shown)
        assert chart is not None
        assert "ST-LPIPS" in chart
        assert not {"nan", "inf"} & {*re.findall(r"[a-z]+", chart)}


def test_levels_of_all_tasks_are_compared_where_the_tasks_are_the_same() -> None:
    fewer = [together(one, 1.5, "draw") for one in steady(20)]
    more = [together(night(number, 1.5), 3.0, "draw", "sticker") for number in range(20, 30)]
    assert [one.change for one in segments([*fewer, *more], (ALL_TASKS, "end_to_end"))] == [None, None]


@pytest.mark.parametrize(
    "called", [night_id, lambda number: f"build-{80 + number}"], ids=["days", "numbers"]
)  # build-99, build-100
def test_what_is_acknowledged_is_clean_from_that_night_on(
    called: Callable[[int], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = replace(REGRESSION, night=called(20))
    earlier, other = replace(at, night=called(19)), replace(at, key="peak_ram")
    folder = store(tmp_path, [replace(one, night=called(n)) for n, one in enumerate(SLOWER)], [earlier, at, other])
    words = ("--acknowledge", "four more steps", "--until", "30d", "--night", called(20), "--figure", "end_to_end")
    assert history(folder, "restyle-s25", *words) == 0
    says(capsys.readouterr().out, 1)
    told = {(ruling.night, ruling.key): ruling.kind for ruling in rulings_in(folder)}
    assert told == {
        (called(19), "end_to_end"): RulingKind.REGRESSION,
        (called(20), "end_to_end"): RulingKind.CLEAN,
        (called(20), "peak_ram"): RulingKind.REGRESSION,
    }
    assert history(folder, "restyle-s25") == 0
    assert "four more steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("other",), ("other", "restyle-s25")),
        (("restyle-s25", "--devices", "tab"), ("tab", "s25")),
        (("restyle-s25", "--acknowledge", "so"), ()),
        (("restyle-s25", "--acknowledge", " ", "--until", "3d"), ()),
        (("restyle-s25", "--until", "3d"), ()),
        (("restyle-s25", "--acknowledge", "so", "--until", "3d", "--night", "x"), ("x",)),
        (("restyle-s25", "--acknowledge", "so", "--until", "3d", "--figure", "x"), ("x",)),
        (("--acknowledge", "so", "--until", "3d"), ()),
        (("--devices", "s25"), ("--devices",)),
        (("--all",), ("--all",)),
        (("--figure", "end_to_end"), ()),
        (("restyle-s25", "--bisect", night_id(3), night_id(25), "--night", night_id(3)), ("--night",)),
        (("restyle-s25", "--bisect", night_id(3), night_id(25), "--acknowledge", "so"), ()),
        (("restyle-s25", "--bisect", night_id(25), night_id(3)), ()),
        (("restyle-s25", "--bisect", "x", night_id(3)), ("x",)),
    ],
)
def test_what_cannot_be_asked_is_refused(
    slower: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: tuple[str, ...]
) -> None:
    assert history(slower, *words) == 2
    says(capsys.readouterr().err, *message)


@pytest.mark.parametrize("until", ["400d", "2020-01-01", "2026-13-01", "9999-12-31", "soon"])
def test_an_end_that_cannot_be_is_refused(tmp_path: Path, until: str) -> None:
    with pytest.raises(SystemExit):
        history(tmp_path, "restyle-s25", "--acknowledge", "so", "--until", until)


def test_an_end_may_be_a_day(tmp_path: Path) -> None:
    day = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    assert history(store(tmp_path, SLOWER[-1:]), "restyle-s25", "--acknowledge", "so", "--until", day) == 0


def test_a_folder_without_nights_says_what_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(tmp_path) == 2
    assert "quadbench nightly" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bisection_launches_in_turn_and_names_the_files_with_the_night_and_what_is_gone(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path)

    def built(steps: int) -> Subject:
        chosen = side_of(str(tiny_recipe), {"tasks.2.sampler.steps": str(steps)}, layout)
        return Subject(bundle=chosen.bundles([LOCAL_NAME], layout=layout, observer=Silent())[LOCAL_NAME].artifact.digest)

    ran = (built(4), NEW, built(24))
    store(
        tmp_path, [replace(night(n, 1.5), subject=subject, device="local", address=LOCAL_NAME) for n, subject in enumerate(ran)]
    )
    assert history(tmp_path, "restyle-s25", "--bisect", night_id(0), ran[2].bundle[:12], "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [told[name]["bundle"] for name in ("last_good", "first_bad")] == [ran[0].bundle, ran[2].bundle]
    assert (told["night"], told["unjudged"]) == (night_id(2), [{"bundle": NEW.bundle, "kit": None}])


def test_files_that_are_not_there_cannot_be_told(slower: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(slower, "restyle-s25", "--bisect", night_id(0), night_id(29)) == 2
    says(capsys.readouterr().err)


def subjects(count: int) -> tuple[Subject, ...]:
    return subjects_of([replace(night(n, 1.5), subject=Subject(bundle=f"{n // 2:064x}")) for n in range(2 * count)])


@pytest.mark.parametrize("change_at", range(1, 12))
def test_bisection_asks_for_few_and_names_the_first_that_changed(change_at: int) -> None:
    all_of_them, asked = subjects(12), list[Subject]()

    def is_changed(subject: Subject) -> bool:
        asked.append(subject)
        return all_of_them.index(subject) >= change_at

    told = bisect(all_of_them, is_changed)
    assert (told.last_good, told.first_bad, told.unjudged) == (all_of_them[change_at - 1], all_of_them[change_at], ())
    assert len(asked) <= 4


def test_what_cannot_be_told_is_left_out_and_named() -> None:
    all_of_them = subjects(6)
    answers = {1: False, 2: None, 3: None, 4: True}
    told = bisect(all_of_them, lambda subject: answers[all_of_them.index(subject)])
    assert (told.last_good, told.first_bad) == (all_of_them[1], all_of_them[4])
    assert set(told.unjudged) == {all_of_them[2], all_of_them[3]}
