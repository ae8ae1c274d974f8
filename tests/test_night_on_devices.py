"""A night on four virtual devices, each with a fate of its own, has the right ruling for each, and says the cause."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from support.scripted_night import remember

pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

from quadbench.artifacts.night_record import Ruling, RulingKind
from quadbench.cli import main
from quadbench.devices import adb_commands
from quadbench.nightly import launcher, perform
from quadbench.pipeline import RunOptions
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.results.nights import NightStore
from quadbench.results.records import read_records
from quadbench.statistics import Looks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # two bundles are built, and some hundred launches run

FLAKY = "events: [{event: unplug, when: {at: launch, launch: 3, after_s: 0.2}, for_s: 1}]"
VANISHING = "events: [{event: unplug, when: {at: launch, launch: 2, after_s: 0.2}}]"
HOT = "phases: [{thermal_status: 3, skin_c: 46.5}]"
FATES = {"s25": FLAKY, "tabs11": HOT, "s25-exynos": VANISHING}
NIGHTS, NOISE, FASTER = 12, 0.1, 0.25


class Team:
    """A team's folder with a recipe, the file of its nights, and four devices to which nothing happens yet."""

    def __init__(self, folder: Path, recipe: Path) -> None:
        self.folder, self.layout = folder, Layout(folder / "results")
        shutil.copytree(recipe.parent, folder / "team")
        self.recipe = folder / "team" / recipe.name
        quick = "gate: {wait_s: 0.5, retries: 1, min_battery_percent: 0}"
        text = self.recipe.read_text().replace("baselines: [per-graph]", "baselines: []")
        self.recipe.write_text(text.replace("timeout_s: 120}", f"timeout_s: 120, {quick}}}"))
        self.addresses = {name: f"virtual:{name}?scenario={folder / name}.yaml" for name in FATES} | {"local": "local"}
        self.file = folder / "team" / "night.yaml"
        night = {
            "schema_version": 1,
            "name": "phones",
            "devices": list(self.addresses.values()),
            "yardstick": "reference",
            "blocks": 2,
            "quality": ["ssim"],
            "limits": {"quality": 0.000001},  # what tells the pictures of other files apart at all
            "cases": [
                {"name": "portrait", "source": self.recipe.name, "owner": "ana@lab"},
                {"name": "scene", "source": "scene.yaml", "devices": ["local"]},
            ],
        }
        self.file.write_text(yaml.safe_dump(night))
        shutil.copyfile(self.recipe, folder / "team" / "scene.yaml")
        self.befall({})

    def befall(self, fates: dict[str, str]) -> None:
        for name in FATES:
            text = f"schema_version: 1\nname: mine\ntitle: A scenario of a test.\n{fates.get(name, '')}\n"
            (self.folder / f"{name}.yaml").write_text(text)

    def slow_one_adapter_down(self) -> None:
        """Let the task of one adapter take three times as many steps."""
        text = self.recipe.read_text()
        self.recipe.write_text(text.replace("{scheme: olss, steps: 4}", "{scheme: olss, steps: 12}"))

    def perform(self, night: str) -> tuple[int, tuple[Ruling, ...]]:
        code = main(["nightly", "run", str(self.file), "--night", night, "--results", str(self.layout.root)])
        with read_records(self.layout.database) as records:
            return code, NightStore(records.engine).rulings(f"phones-{night}")


@pytest.fixture
def team(tiny_recipe: Path, harness: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """A team with a yardstick. Devices that are lost are not waited for as long as phones are."""
    monkeypatch.setattr(adb_commands, "RECONNECT_S", 3.0)
    monkeypatch.setattr(launcher, "_RUN_OPTIONS", RunOptions(keep_going=True, retries=1, wait_s=3.0))
    monkeypatch.setattr(perform, "LOOKS", Looks(at=(6,)))
    team = Team(tmp_path, tiny_recipe)
    shutil.copytree(harness.parent, team.layout.programs / harness.parent.name)
    assert main(["nightly", "freeze", "reference", str(team.recipe), "--results", str(team.layout.root)]) == 0
    return team


def scores(team: Team, night: str) -> dict[tuple[str, str], set[str]]:
    """The tasks whose pictures were scored in a night, by case and device."""
    with read_records(team.layout.database) as records:
        measured = NightStore(records.engine).night(f"phones-{night}").measurements
    return {
        (one.case, one.address.partition("?")[0]): {point.task for point in one.points if point.key == "ssim"} for one in measured
    }


def told(rulings: Sequence[Ruling]) -> set[tuple[str, str, RulingKind]]:
    return {(one.case, one.address.partition("?")[0], one.kind) for one in rulings}


def test_each_of_four_devices_gets_the_ruling_that_its_fate_deserves_and_a_second_start_changes_none(team: Team) -> None:
    code, first = team.perform("first")
    assert code == 0, first
    tasks = {task.name for task in load_recipe(str(team.recipe)).tasks}
    assert set(map(frozenset, scores(team, "first").values())) == {frozenset(tasks)}
    assert len(scores(team, "first")) == 5
    remember(team.layout.database, "phones-first", NIGHTS, noise=NOISE, faster={"local": FASTER})
    team.befall(FATES)
    team.slow_one_adapter_down()
    code, rulings = team.perform("tonight")
    ruled = told(rulings)
    assert ("portrait", "virtual:s25", RulingKind.REGRESSION) in ruled  # though its cable came off
    assert ("portrait", "virtual:tabs11", RulingKind.MISSING) in ruled
    assert ("portrait", "virtual:s25-exynos", RulingKind.MISSING) in ruled
    assert ("scene", "local", RulingKind.ENVIRONMENT) in ruled
    assert code == 2
    causes = {one.address.partition("?")[0]: one.cause for one in rulings if one.kind is RulingKind.MISSING}
    assert "thermal status 3" in causes["virtual:tabs11"]
    assert "was lost" in causes["virtual:s25-exynos"]
    slower = {one.task for one in rulings if one.kind is RulingKind.REGRESSION and one.key == "unet_step"}
    assert slower == set()  # a step takes as long as ever: there are more of them
    assert scores(team, "tonight")["portrait", "virtual:s25"] == tasks
    pictures = {(one.case, one.kind) for one in rulings if one.key == "ssim"}
    assert pictures & {("portrait", RulingKind.REGRESSION), ("portrait", RulingKind.IMPROVEMENT)}  # three times as many steps
    assert "scene" not in {case for case, _ in pictures}
    report = (team.layout.night("phones-tonight") / "night.html").read_text()
    assert "thermal status 3" in report
    again, second = team.perform("tonight")
    assert (again, told(second)) == (code, ruled)
