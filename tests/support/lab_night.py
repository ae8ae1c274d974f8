"""Lab night: a desk's recipe, a farm and fates -> nights of a team with four devices, to which these happen, on three hosts."""

import json
import shutil
from pathlib import Path

from quadbench.artifacts.night_record import Ruling, RulingKind
from quadbench.results.engine import open_engine
from quadbench.results.nights import NightStore
from support.farm_lab import RUN_S, FarmLab
from support.lab_runs import Desk

FLAKY = "events: [{event: unplug, when: {at: launch, launch: 3, after_s: 0.2}, for_s: 1}]"
HOT = "phases: [{thermal_status: 3, skin_c: 46.5}]"
_PHONES = ("s25", "tabs11", "s25-exynos")
_GATE = "timeout_s: 120, gate: {wait_s: 0.5, retries: 1, min_battery_percent: 0}}"


class LabTeam:
    """A team whose nights a farm performs; its folder is seen by all hosts. Nothing happens to its devices yet."""

    def __init__(self, farm: FarmLab, desk: Desk, folder: Path) -> None:
        self.farm, self.desk, self.folder = farm, desk, folder
        shutil.copytree(desk.recipe.parent, folder)
        self.recipe = folder / desk.recipe.name
        self.recipe.write_text(self.recipe.read_text().replace("timeout_s: 120}", _GATE))
        shutil.copyfile(self.recipe, folder / "scene.yaml")
        cases = [
            {"name": "portrait", "source": self.recipe.name, "devices": [f"virtual-{name}" for name in _PHONES]},
            {"name": "scene", "source": "scene.yaml", "devices": ["local"]},
        ]
        night = {"schema_version": 1, "name": "fates", "devices": ["local"], "yardstick": "reference", "blocks": 2}
        self.file = folder / "night.yaml"
        self.file.write_text(json.dumps({**night, "cases": cases}))
        for name in _PHONES:
            self.befall(name, "")
        for host in farm.lab.hosts:
            desk.equip(farm.results(host))

    def befall(self, name: str, fate: str) -> None:
        """Let something happen to a device from now on."""
        self._scenario(name).write_text(f"schema_version: 1\nname: mine\ntitle: A scenario of a test.\n{fate}\n")

    def slow_one_adapter_down(self) -> None:
        """Let the task of one adapter take three times as many steps."""
        text = self.recipe.read_text()
        self.recipe.write_text(text.replace("{scheme: olss, steps: 4}", "{scheme: olss, steps: 12}"))

    def start_hosts(self, *shares: tuple[str, ...]) -> None:
        """Start HTCondor on each host, with its share of the devices by their names; `local` is this machine."""
        for host, names in zip(self.farm.lab.hosts, shares, strict=True):
            addresses = [f"virtual:{name}?scenario={self._scenario(name)}" if name in _PHONES else name for name in names]
            self.farm.start_host(host, ",".join(addresses))
        self.farm.wait_for_slots(sum(map(len, shares)) + len(shares))

    def perform(self, night: str) -> int:
        """Perform a night, or go on with it, and return the exit code. What failed is tried again without pauses."""
        words = "nightly", "run", self.file, "--night", night, "--farm", self.farm.environment["QUADBENCH_DATABASE"]
        conductor = self.farm.start_quadbench(self.farm.lab.hosts[2], *words, results=self.desk.results)
        self.farm.wait_until(lambda: conductor.poll() is not None, is_hurried=True, patience_s=2 * RUN_S)
        return conductor.wait()

    def rulings(self, night: str) -> tuple[Ruling, ...]:
        engine = open_engine(self.farm.database)
        try:
            return NightStore(engine).rulings(f"fates-{night}")
        finally:
            engine.dispose()

    def _scenario(self, name: str) -> Path:
        return self.folder / f"{name}.yaml"


def told(rulings: tuple[Ruling, ...]) -> set[tuple[str, str, RulingKind]]:
    return {(one.case, one.address, one.kind) for one in rulings}
