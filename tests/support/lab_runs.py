"""Lab runs: a run's database and results folder -> what of it does not depend on time and place; a desk without a farm."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quadbench.results.engine import Source
from quadbench.results.layout import Layout
from support.farm_lab import FarmLab
from support.lab import Host
from support.stored_records import query

DEVICES = ["virtual:s25", "virtual:tabs11", "local"]
_LAUNCH = "r.device_address, r.variant, r.launch"
_RECORDS = f"SELECT {_LAUNCH}, r.status, r.target, r.recipe_digest, r.bundle_digest, r.compiled_digest FROM records r"
_PLACE = "metric, task, component, iteration, step, item, is_warmup"
# Memory is looked at by the clock, so that a launch that takes longer has more samples of it.
_KIND = "r.id = s.record AND metric NOT IN ('rss_bytes', 'pss_bytes')"
_SAMPLES = f"SELECT {_LAUNCH}, {_PLACE} FROM records r JOIN samples s ON {_KIND}"


@dataclass(frozen=True)
class Content:
    """What a run has: its launches, how many samples of each kind, and the pictures by their sha256."""

    records: Counter[Any]
    samples: Counter[Any]
    pictures: dict[Any, str]


def content_of(database: Source, results: Path) -> Content:
    """Return the content of the only run of a database, whose pictures lie in a results folder."""
    pictures = {}
    for address, variant, launch, images in query(database, f"SELECT {_LAUNCH}, images FROM records r"):
        named: dict[str, str] = json.loads(images) if isinstance(images, str) else images  # type: ignore[assignment]
        for name, path in named.items():
            pictures[address, variant, launch, name] = hashlib.sha256((results / path).read_bytes()).hexdigest()
    samples = Counter((*map(str, row[:-1]), bool(row[-1])) for row in query(database, _SAMPLES))
    return Content(records=Counter(query(database, _RECORDS)), samples=samples, pictures=pictures)


def launches_of(farm: FarmLab) -> list[tuple[object, ...]]:
    return farm.query("SELECT variant, launch FROM records ORDER BY id")


def share_of_the_farm(farm: FarmLab) -> float:
    """Return how much of the time of attempts at devices is not within a launch."""
    spent = "SELECT sum(extract(epoch FROM a.ended_at - a.started_at)) FROM attempts a JOIN jobs j ON j.id = a.job"
    attempts = float(str(farm.query(f"{spent} WHERE j.kind = 'measure'")[0][0]))
    launches = float(str(farm.query("SELECT sum(extract(epoch FROM ended_at - started_at)) FROM records")[0][0]))
    return 1 - launches / attempts


def marked_processes(results: Path) -> list[str]:
    """Return the processes of this machine in whose environment or command a results folder stands, as that of a sandbox."""
    listed = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"{results}/".encode() in told:
            listed.append(folder.name)
    return listed


@dataclass(frozen=True)
class Desk:
    """A results folder in which a recipe was run without a farm."""

    recipe: Path
    results: Path
    content: Content

    @classmethod
    def measured(cls, recipe: Path, results: Path, host: Host) -> "Desk":
        words = ["-m", "quadbench", "run", recipe, "--devices", ",".join(DEVICES), "--results", results]
        settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        ended = subprocess.run(host.command(sys.executable, *words), env=settings, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return cls(recipe=recipe, results=results, content=content_of(Layout(results).database, results))

    def equip(self, results: Path) -> None:
        """Give the folder of another host the harness's build, which takes a while."""
        shutil.copytree(Layout(self.results).programs, Layout(results).programs)

    def with_launches(self, count: int, folder: Path) -> Path:
        """Return the recipe with more launches; its bundle is the same."""
        shutil.copytree(self.recipe.parent, folder)
        document = yaml.safe_load(self.recipe.read_text())
        document["measure"]["launches"] = count
        path = folder / self.recipe.name
        path.write_text(yaml.safe_dump(document))
        return path


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a small empty disk, which all hosts of the lab see."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Leave nothing of a disk free until the block ends."""
    filler, room = disk / "filler", os.statvfs(disk)
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize))
    try:
        yield
    finally:
        filler.unlink()
