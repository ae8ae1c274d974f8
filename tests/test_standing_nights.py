"""A regression that stays is told every night until it is acknowledged or mended: first as new, then as standing."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from support.report_page import Page
from support.scripted_night import NEW, OLD, Phone, ScriptedLauncher, plan_of, remember
from support.sentences import reads

from quadbench.artifacts.night_record import Acknowledgement, Night, RulingKind
from quadbench.nightly.exports import night_junit, night_message
from quadbench.nightly.night_report import STANDING, NightResult, exit_code
from quadbench.nightly.perform import perform
from quadbench.nightly.verdicts import rulings_by_acknowledgement
from quadbench.report.night import NightView
from quadbench.report.night_formats import render_night
from quadbench.results.layout import Layout
from quadbench.results.nights import NightStore, night_heads
from quadbench.results.records import open_records

WORD, CASE, EARLIER = "steady", "portrait", 12
FILES = [f"{number}" * 32 for number in range(30, 40)]  # digests


@dataclass
class Sequence:
    """Nights one after the other, of a case whose files change every night."""

    launcher: ScriptedLauncher
    number: int = EARLIER

    def perform(self, digest: str, cost: float) -> tuple[Night, NightView]:
        """Perform the next night, whose files take so many times as long, and then once more, which must change no word."""
        self.number += 1
        self.launcher.day = self.number
        self.launcher.costs |= {(digest, task): cost for task in ("restyle", "remove-object", "draw")}
        plan = plan_of(self.launcher, {CASE: digest}, [WORD])
        result = perform(f"night-{self.number}", plan, self.launcher, layout=self.launcher.layout)
        asked = len(self.launcher.asked)
        again = perform(f"night-{self.number}", plan, self.launcher, layout=self.launcher.layout)
        assert again.view(()).sentence == result.view(()).sentence
        assert len(self.launcher.asked) == asked
        return result.night, result.view(())

    def acknowledge(self, days: int) -> None:
        """Accept the latest night's figures for some nights, as `quadbench history --acknowledge` does."""
        with open_records(self.launcher.layout.database) as records:
            nights = NightStore(records.engine)
            measured = nights.series(CASE)
            at = measured[-1].measured_at
            word = Acknowledgement(
                case=CASE,
                night=measured[-1].night,
                reason="more steps",
                owner="ana@lab",
                made_at=at,
                since=at,
                until=at + timedelta(days=days, hours=1),
            )
            nights.acknowledge(word)
            nights.add(rulings_by_acknowledgement(word, nights.rulings_of(CASE), measured, at))

    def view(self) -> NightView:
        """The latest night as it is told now."""
        with open_records(self.launcher.layout.database) as records:
            nights = NightStore(records.engine)
            return NightResult.from_night(nights.night(f"night-{self.number}"), nights).view(())


@pytest.fixture
def nights(tmp_path: Path) -> Iterator[Sequence]:
    launcher = ScriptedLauncher(layout=Layout(tmp_path / "results"), phones={WORD: Phone()})
    perform("night-0", plan_of(launcher, {CASE: OLD}), launcher, layout=launcher.layout)
    remember(launcher.layout.database, "night-0", EARLIER)
    return Sequence(launcher)


def failures(view: NightView) -> set[str]:
    """The types of the failures of a night as JUnit XML."""
    return {str(one.get("type")) for one in ET.fromstring(night_junit(view)).iter("failure")}


def test_a_regression_of_files_that_change_nightly_stands_until_acknowledged_comes_back_and_is_mended(nights: Sequence) -> None:
    night, view = nights.perform(FILES[0], 1.05)
    assert (exit_code(night), view.standing, failures(view)) == (2, 0, {"REGRESSION"})
    for number in range(1, 5):
        night, view = nights.perform(FILES[number], 1.05)
        assert (exit_code(night), view.standing, failures(view)) == (STANDING, 1, {"STANDING"})
        assert f"since night-{EARLIER + 1}, {number + 1} nights" in view.sentence
        told = (render_night(view, {}), str(night_message(view)["text"]))
        assert all(f"REGRESSION for {number + 1} nights" in text for text in told)
    nights.acknowledge(days=2)
    assert nights.view().outcome is RulingKind.CLEAN
    assert all(f"worse since night-{EARLIER + 1}" in sentence for sentence in nights.view().ended)
    for number in (5, 6):
        night, view = nights.perform(FILES[number], 1.05)
        assert (exit_code(night), view.standing, failures(view)) == (0, 0, set())
    night, view = nights.perform(FILES[7], 1.05)
    assert (exit_code(night), view.standing, failures(view)) == (STANDING, 1, {"STANDING"})
    assert f"since night-{EARLIER + 1}, 8 nights" in view.sentence
    night, view = nights.perform(FILES[8], 1.0)
    assert (exit_code(night), view.standing, failures(view)) == (0, 0, set())
    assert view.ended
    assert "Over or accepted" in Page(render_night(view, {})).text
    night, view = nights.perform(FILES[9], 1.0)
    assert (exit_code(night), view.ended) == (0, ())


def test_a_new_regression_beside_one_that_stands_is_told_first_and_decides_the_exit_code(nights: Sequence) -> None:
    nights.perform(NEW, 1.05)
    other = replace(nights.launcher.phones[WORD])
    nights.launcher.phones["other"] = other
    launcher = nights.launcher
    plan = plan_of(launcher, {CASE: OLD}, ["other"])
    perform("other-0", plan, launcher, layout=launcher.layout)
    remember(launcher.layout.database, "other-0", EARLIER)
    launcher.day += 1
    plan = plan_of(launcher, {CASE: NEW}, [WORD, "other"])
    result = perform("both", plan, launcher, layout=launcher.layout)
    view = result.view(())
    assert (exit_code(result.night), view.standing, view.counts[RulingKind.REGRESSION]) == (2, 1, 2)
    assert [(one.address, one.is_standing) for one in view.findings] == [("other", False), (WORD, True)]
    reads(view.sentence.partition("each counted")[2], 1, 1, snapshot=False)
    with open_records(launcher.layout.database) as records:
        (head,) = night_heads(records.engine, 1)
    assert 0 < head.standing < head.rulings["REGRESSION"]
