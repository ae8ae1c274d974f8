"""A night is performed once, whatever befalls its phones; each cause gets its ruling, and a night that was cut short goes on."""

import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted_night import NEW, OLD, YARDSTICK, Phone, ScriptedLauncher, plan_of, remember
from support.sentences import reads, says

from quadbench.artifacts.night_record import Night, Ruling, RulingKind
from quadbench.host import file_lock
from quadbench.nightly.night_report import ERROR, exit_code
from quadbench.nightly.perform import perform
from quadbench.results.layout import Layout

WORDS = ("steady", "hot", "vanished", "flaky", "shifting")
NIGHTS = 12
HOT = "INVALID: thermal status 3 (severe), at most 1 allowed; waited 600 s"
GONE = "device 'vanished' is not attached; attached: none"
PARTED = "device 'flaky' was lost: the cable came off"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a history of good nights with two cases. Not to be changed."""
    folder = tmp_path_factory.mktemp("history")
    launcher = ScriptedLauncher(layout=Layout(folder), phones={word: Phone() for word in WORDS})
    performed(launcher, "first", portrait=OLD, scene=OLD)
    remember(launcher.layout.database, "first", NIGHTS)
    return folder


@pytest.fixture(scope="module")
def befallen(history: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ScriptedLauncher, Night]:
    """A night in which something befell all phones but the steady one. Not to be changed."""
    launcher = with_history(history, tmp_path_factory.mktemp("befallen") / "results")
    befall(launcher)
    return launcher, performed(launcher, "tonight", portrait=NEW, scene=OLD)


@pytest.fixture
def launcher(history: Path, tmp_path: Path) -> ScriptedLauncher:
    """A launcher with that history."""
    return with_history(history, tmp_path / "results")


def with_history(history: Path, folder: Path) -> ScriptedLauncher:
    shutil.copytree(history, folder)
    return ScriptedLauncher(layout=Layout(folder), phones={word: Phone() for word in WORDS}, day=NIGHTS + 1)


def performed(launcher: ScriptedLauncher, night_id: str, **cases: str) -> Night:
    return perform(night_id, plan_of(launcher, cases), launcher, layout=launcher.layout).night


def befall(launcher: ScriptedLauncher) -> None:
    """Let something happen to each phone but the steady one, and let what portrait runs tonight be slow with one adapter."""
    launcher.costs[NEW, "restyle"] = 1.08
    launcher.phones["hot"].faults = [HOT] * 9
    launcher.phones["vanished"].faults = [GONE] * 9
    launcher.phones["flaky"].faults = [PARTED]
    launcher.phones["shifting"].pace = 1.2


def kinds(night: Night, case: str, word: str) -> set[RulingKind]:
    return {ruling.kind for ruling in night.rulings if (ruling.case, ruling.address) == (case, word)} - {RulingKind.CLEAN}


def regressions(night: Night) -> list[Ruling]:
    return [ruling for ruling in night.rulings if ruling.kind is RulingKind.REGRESSION]


def test_each_cause_gets_its_ruling_and_costs_no_other(befallen: tuple[ScriptedLauncher, Night]) -> None:
    launcher, night = befallen
    assert {ruling.task for ruling in regressions(night)} == {"restyle"}
    assert {ruling.address for ruling in regressions(night)} == {"steady", "flaky", "shifting"}
    assert launcher.confirmed
    assert set(launcher.confirmed) == {("draw", "remove-object", "restyle")}
    assert all(ruling.ratio == pytest.approx(1.08, rel=0.01) and ruling.comparison for ruling in regressions(night))
    assert kinds(night, "scene", "steady") == set() == kinds(night, "scene", "flaky")
    assert kinds(night, "scene", "shifting") == {RulingKind.ENVIRONMENT}
    for word, cause in {"hot": HOT, "vanished": GONE}.items():
        for case in ("portrait", "scene"):
            assert kinds(night, case, word) == {RulingKind.MISSING}
            (ruling,) = (one for one in night.rulings if (one.case, one.address) == (case, word))
            assert (ruling.cause, ruling.owner) == (cause, "ana@lab")
    assert exit_code(night) == 2
    assert night.ended_at is not None


def test_performed_again_a_night_measures_only_what_was_missing_and_rules_the_same(
    befallen: tuple[ScriptedLauncher, Night], tmp_path: Path
) -> None:
    before, first = befallen
    launcher = with_history(before.layout.root, tmp_path / "results")
    befall(launcher)
    again = performed(launcher, "tonight", portrait=NEW, scene=OLD)
    assert {word for _, word, _ in launcher.asked} == {"hot", "vanished"}
    assert told(again) == told(first)
    launcher.phones["vanished"].faults = []
    later = performed(launcher, "tonight", portrait=NEW, scene=OLD)
    assert kinds(later, "portrait", "vanished") == {RulingKind.REGRESSION}
    assert kinds(later, "scene", "vanished") == set()


@pytest.mark.parametrize("after", [pytest.param(0, marks=pytest.mark.slow), 3, pytest.param(11, marks=pytest.mark.slow), 13])
def test_a_night_that_was_cut_short_goes_on_and_rules_the_same(launcher: ScriptedLauncher, after: int) -> None:
    befall(launcher)
    launcher.interrupted_after = after
    with pytest.raises(KeyboardInterrupt):
        performed(launcher, "tonight", portrait=NEW, scene=OLD)
    launcher.interrupted_after = None
    launcher.phones["flaky"].faults = [PARTED]
    night = performed(launcher, "tonight", portrait=NEW, scene=OLD)
    measured = [asked for asked in launcher.asked if asked[2] == 3]
    assert len([one for one in measured if one[1] == "steady"]) == 2
    assert {ruling.address for ruling in regressions(night)} == {"steady", "flaky", "shifting"}
    assert kinds(night, "scene", "shifting") == {RulingKind.ENVIRONMENT}
    assert kinds(night, "scene", "hot") == {RulingKind.MISSING}


def test_a_confirmation_that_could_not_be_done_leaves_it_open_and_says_why(launcher: ScriptedLauncher) -> None:
    launcher.costs[NEW, "restyle"] = 1.08
    launcher.fails_to_confirm = PARTED
    night = perform("tonight", plan_of(launcher, {"portrait": NEW}, ["steady"]), launcher, layout=launcher.layout).night
    assert kinds(night, "portrait", "steady") >= {RulingKind.INCONCLUSIVE}
    assert all(PARTED in one.cause for one in night.rulings if one.kind is RulingKind.INCONCLUSIVE)
    assert exit_code(night) == 3
    assert [blocks for _, _, blocks in launcher.asked] == [3, 16, 16]  # it is tried once more


def test_a_confirmation_whose_files_cannot_be_reached_is_asked_for_again_when_the_night_goes_on(
    launcher: ScriptedLauncher,
) -> None:
    launcher.costs[NEW, "restyle"] = 1.08
    launcher.is_away = True
    words = ["steady", "shifting"]
    plan = plan_of(launcher, {"portrait": NEW}, words)
    night = perform("tonight", plan, launcher, layout=launcher.layout).night
    assert (night.rulings, exit_code(night)) == ((), ERROR)
    launcher.is_away = False
    night = perform("tonight", plan, launcher, layout=launcher.layout).night
    assert [ruling.address for ruling in regressions(night) if ruling.key == "end_to_end"] == words


def test_a_case_that_cannot_be_at_all_is_missing_on_each_device_with_the_reason(launcher: ScriptedLauncher) -> None:
    words = WORDS[:2]
    plan = plan_of(launcher, {"scene": OLD}, words, faults={"broken": "unknown recipe 'nothing'"})
    night = perform("tonight", plan, launcher, layout=launcher.layout).night
    missing = [one for one in night.rulings if one.kind is RulingKind.MISSING]
    assert {(one.case, one.address, one.cause) for one in missing} == {("broken", w, "unknown recipe 'nothing'") for w in words}
    assert exit_code(night) == 4


def test_tasks_that_the_yardstick_lacks_are_named_in_the_ruling_on_all_figures(launcher: ScriptedLauncher) -> None:
    plan = plan_of(launcher, {"scene": OLD}, ["steady"])
    (case,) = plan.cases
    stored = launcher.bundle(YARDSTICK)
    short = replace(stored, artifact=replace(stored.artifact, tasks=stored.artifact.tasks[:1]))
    night = perform(
        "tonight",
        replace(plan, cases=(replace(case, yardstick=replace(case.yardstick, bundle=short)),)),
        launcher,
        layout=launcher.layout,
    ).night
    alone = ", ".join(task.name for task in stored.artifact.tasks[1:])
    (ruling,) = (one for one in night.rulings if one.task is None)
    assert alone
    assert ruling.kind is RulingKind.CLEAN
    says(ruling.cause, 13, alone)


def test_what_there_is_no_time_for_is_missing_and_a_night_keeps_its_time_when_it_goes_on(launcher: ScriptedLauncher) -> None:
    plan = replace(plan_of(launcher, {"scene": OLD}), budget_s=0.0)
    for _ in range(2):
        night = perform("tonight", plan, launcher, layout=launcher.layout).night
        (cause,) = {one.cause for one in night.rulings}
        reads(cause, "the night's time budget was over", snapshot=False)
    assert launcher.asked == []


def test_a_second_night_in_one_folder_says_which_it_waits_for_and_is_performed_then(
    launcher: ScriptedLauncher, caplog: pytest.LogCaptureFixture
) -> None:
    with file_lock(launcher.layout.night_lock, "night first, by process 7 of ana@lab,", pytest.fail):
        second = threading.Thread(target=performed, args=(launcher, "second"), kwargs={"scene": OLD})
        second.start()
        while "night first, by process 7 of ana@lab, is running in this results folder" not in caplog.text:
            second.join(timeout=0.05)
            assert second.is_alive()
        assert launcher.asked == []
    second.join()
    assert {word for _, word, _ in launcher.asked} == set(WORDS)


def test_a_word_for_a_device_that_has_been_measured_under_another_says_so(launcher: ScriptedLauncher) -> None:
    plan = plan_of(launcher, {"scene": OLD}, ["steady"])
    perform("tonight", plan, launcher, layout=launcher.layout)
    launcher.phones["again"] = launcher.phones["steady"]
    launcher.devices["again"] = "steady"
    night = perform("tonight", plan_of(launcher, {"scene": OLD}, ["steady", "again"]), launcher, layout=launcher.layout).night
    (ruling,) = (one for one in night.rulings if one.address == "again")
    reads(ruling.cause, "steady")


def told(night: Night) -> set[tuple[object, ...]]:
    return {(one.case, one.address, one.task, one.key, one.kind, one.cause) for one in night.rulings}


def test_a_host_that_cannot_score_pictures_says_so_and_measures_and_rules_on_all_else(
    launcher: ScriptedLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("quadbench.quality")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    plan = plan_of(launcher, {"portrait": OLD}, ["steady"])
    plan = replace(plan, cases=tuple(replace(case, quality=("ssim",)) for case in plan.cases))
    night = perform("tonight", plan, launcher, layout=launcher.layout).night
    missing = [one for one in night.rulings if one.kind is RulingKind.MISSING]
    assert {(one.task, one.key) for one in missing} == {(task, "ssim") for task in ("restyle", "remove-object", "draw")}
    reads({one.cause for one in missing}, "torch", "quadbench[quad]")
    assert {one.kind for one in night.rulings if one not in missing} == {RulingKind.CLEAN}
    assert exit_code(night) == 4
