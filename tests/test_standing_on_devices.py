"""On a virtual device, a slower recipe is told for five nights, accepted for a time, told again and mended, on every output."""

import shutil
import xml.etree.ElementTree as ET
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from support.report_page import Page
from support.scripted_night import remember

pytest.importorskip("torch")

from quadbench.artifacts.night_record import Ruling, RulingKind
from quadbench.cli import main
from quadbench.nightly import perform
from quadbench.nightly.night_report import STANDING
from quadbench.results.layout import Layout
from quadbench.results.nights import NightStore
from quadbench.results.records import open_records, read_records
from quadbench.statistics import Looks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]  # four bundles are built, and some hundred launches run

NIGHTS, NOISE = 12, 0.1
FIGURE = ("end_to_end", "change")  # of the task whose steps grow: all tasks together may be in doubt on a busy machine
STEPS = "{{scheme: olss, steps: {}}}"


class Team:
    """A team with one case on one virtual device, and the exit codes and pages of its nights."""

    def __init__(self, folder: Path, recipe: Path, harness: Path) -> None:
        self.layout, self.junit = Layout(folder / "results"), folder / "junit.xml"
        shutil.copytree(recipe.parent, folder / "team")
        shutil.copytree(harness.parent, self.layout.programs / harness.parent.name)
        self.recipe, self.file = folder / "team" / recipe.name, folder / "team" / "night.yaml"
        self.text = self.recipe.read_text().replace("baselines: [per-graph]", "baselines: []")
        self.recipe.write_text(self.text)
        case = {"name": "portrait", "source": self.recipe.name}
        night = {"schema_version": 1, "name": "phones", "devices": ["virtual:s25"], "yardstick": "reference", "blocks": 2}
        self.file.write_text(yaml.safe_dump(night | {"cases": [case]}))
        assert self.command("nightly", "freeze", "reference", str(self.recipe)) == 0

    def command(self, *words: str) -> int:
        return main([*words, "--results", str(self.layout.root)])

    def run_steps(self, steps: int) -> None:
        """Let the task of one adapter take so many steps from now on, which makes new files."""
        assert STEPS.format(4) in self.text
        self.recipe.write_text(self.text.replace(STEPS.format(4), STEPS.format(steps)))

    def perform(self, night: str) -> tuple[int, tuple[Ruling, ...]]:
        code = self.command("nightly", "run", str(self.file), "--night", night, "--junit", str(self.junit))
        with read_records(self.layout.database) as records:
            return code, NightStore(records.engine).rulings(f"phones-{night}")

    def failed(self) -> set[str]:
        """The types of the latest night's failures as JUnit XML."""
        return {str(one.get("type")) for one in ET.parse(self.junit).getroot().iter("failure")}

    def page(self, night: str) -> str:
        return Page((self.layout.night(f"phones-{night}") / "night.html").read_text()).text

    def history(self, path: Path) -> str:
        assert self.command("history", "portrait", "--html", str(path)) == 0
        return Page(path.read_text()).text

    def let_acknowledgements_end(self) -> None:
        """Let time pass until what was accepted is so no more."""
        with open_records(self.layout.database) as records, records.engine.connect() as connection:
            writer = connection.execution_options(is_writer=True)
            night = NightStore(records.engine).series("portrait")[-1]
            with writer.begin():
                at = sa.bindparam("at", night.measured_at + timedelta(milliseconds=1))
                table = sa.table("acknowledgements", sa.column("until", sa.DateTime(timezone=True)))
                writer.execute(sa.update(table).values(until=at))


def told(rulings: tuple[Ruling, ...]) -> Ruling | None:
    """The regression of the time of an image of the slower task."""
    regressions = (one for one in rulings if one.kind is RulingKind.REGRESSION)
    return next((one for one in regressions if (one.key, one.task) == FIGURE), None)


def test_a_regression_stays_for_five_nights_is_accepted_comes_back_and_is_mended(
    tiny_recipe: Path, harness: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perform, "LOOKS", Looks(at=(6,)))
    team = Team(tmp_path, tiny_recipe, harness)
    assert team.perform("first")[0] == 0
    remember(team.layout.database, "phones-first", NIGHTS, noise=NOISE)
    for number, steps in enumerate((12, 12, 12, 14, 14), start=1):
        team.run_steps(steps)
        code, rulings = team.perform(f"{number}")
        ruling = told(rulings)
        assert ruling
        assert (ruling.since, ruling.nights) == ("phones-1", number)
        is_new = any(one.kind is RulingKind.REGRESSION and not one.is_standing for one in rulings)
        assert code == (2 if is_new else STANDING)
        assert ("STANDING" in team.failed()) is (number > 1)
        assert number == 1 or f"since phones-1, {number} nights" in team.page(f"{number}")
        page = team.history(tmp_path / "history.html")
        assert "is a REGRESSION" in page
        assert "nothing significant has changed" not in page
    assert team.command("history", "portrait", "--acknowledge", "more steps", "--until", "1h") == 0
    assert team.command("nightly", "run", str(team.file), "--night", "5", "--junit", str(team.junit)) in (0, 5)
    assert "STANDING" not in team.failed()
    code, rulings = team.perform("6")
    assert (told(rulings), code) in ((None, 0), (None, 5))
    team.let_acknowledgements_end()
    code, rulings = team.perform("7")
    ruling = told(rulings)
    assert ruling
    assert (ruling.since, ruling.nights, "STANDING" in team.failed()) == ("phones-1", 7, True)
    team.run_steps(4)
    code, rulings = team.perform("8")
    assert told(rulings) is None
    assert "STANDING" not in team.failed()
    assert "Over or accepted" in team.page("8")
