"""Layout: a results folder -> where each thing in it lies. No other module knows these names."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts import Variant
from quadbench.artifacts.names import can_name_file, check_file_name, check_relative_path

_DIGEST_CHARACTERS = 16  # of a folder's name: enough that two artifacts never share one
_REMOVED = ".removed"
USUAL_ROOT = Path("results")


class _Place:
    """A path that is the same in every results folder."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, layout: "Layout", _: type["Layout"]) -> Path:
        return layout.root / self._path


@dataclass(frozen=True)
class Layout:
    """Everything below one results folder. A path that is returned need not exist. Commands name it as `shown`, if given.

    A name that cannot name a file, or a path that leads out of the folder, is a ValueError.
    """

    root: Path
    shown: str | None = None

    database = _Place("quadbench.sqlite")  # the records, where they are kept in SQLite
    bundles = _Place("bundles")
    scratch = _Place("bundles/scratch")  # of builds, for large weights, for as long as they run
    compiled_bundles = _Place("compiled")  # each a folder named by its digest
    frozen_bundles = _Place("frozen")  # the names under which bundles are frozen, each a small file
    checkpoints = _Place("distill")  # from which an interrupted distillation goes on
    programs = _Place("harness")  # the harness's builds
    kits = _Place("kits")  # each a folder named by its digest
    devices = _Place("devices")  # files and locks of devices: of virtual ones everything that they hold
    runs = _Place("runs")  # each a folder named by its id
    at_work = _Place("at-work")  # the progress of every command at work
    ledger = _Place("ai-hub.json")  # the list of what lies at AI Hub already
    admitted = _Place("admitted.json")  # the name of the bundle that the latest admission made
    night_lock = _Place("nights/lock")  # held by the night that is under way; its content says which that is

    def command(self, *words: str) -> str:
        """The command of quadbench with these words in this folder, as a shell takes it."""
        return f"quadbench {shlex.join((*words, *self.words))}"

    @property
    def words(self) -> tuple[str, ...]:
        """The words that name it in a command; none where it is the usual one."""
        return () if self.root == USUAL_ROOT else ("--results", self.shown or str(self.root))

    @property
    def doctor(self) -> "Layout":
        """The launches by which devices were tried, laid out as they are here: they belong to no run."""
        return Layout(self.root / "doctor")

    def progress(self, name: str) -> Path:
        """The file with the progress of one command at work."""
        return self.at_work / f"{name}.json"

    def bundle(self, digest: str) -> Path:
        return self.bundles / folder_name(digest)

    def frozen(self, name: str) -> Path:
        """The file that says which bundle is frozen under a name."""
        return self.frozen_bundles / f"{check_file_name(name)}.json"

    def compiled_bundle(self, digest: str) -> Path:
        return self.compiled_bundles / folder_name(digest)

    def kit(self, digest: str) -> Path:
        return self.kits / folder_name(digest)

    def run(self, run_id: str) -> Path:
        return self.runs / check_file_name(run_id)

    def removed_run(self, run_id: str) -> Path:
        """The folder of a run that is being removed with its records."""
        return self.runs / f".{check_file_name(run_id)}{_REMOVED}"

    def half_removed_runs(self) -> list[str]:
        """The ids of runs whose removal has begun, and was cut short unless it goes on."""
        names = (path.name[1:].removesuffix(_REMOVED) for path in self.runs.glob(f".*{_REMOVED}"))
        return sorted(filter(can_name_file, names))

    def run_file(self, run_id: str) -> Path:
        """The file with all that belongs to a run beside its records."""
        return self.run(run_id) / "run.json"

    def scores(self, run_id: str) -> Path:
        return self.run(run_id) / "quality.json"

    def launch(self, run_id: str, address: str, variant: Variant, launch: int) -> Path:
        """The folder of one launch: its plan, its events and its images."""
        return self.run(run_id) / plain(address) / f"{variant}-{launch}"

    def report(self, run_id: str) -> Path:
        return self.root / "reports" / f"{check_file_name(run_id)}.html"

    def night(self, night_id: str) -> Path:
        return self.root / "nights" / check_file_name(night_id)

    def night_ids(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("nights/*/"))

    def sweep(self, sweep_id: str) -> Path:
        return self.root / "sweeps" / check_file_name(sweep_id)

    def comparison(self, comparison_id: str) -> Path:
        """The folder with the result of comparing two sides."""
        return self.root / "comparisons" / check_file_name(comparison_id)

    def studies(self) -> list[Path]:
        """The files with what sweeps and comparisons came to, each in the folder of its study; they name the runs too."""
        paths = [*self.root.glob("sweeps/*/sweep.json"), *self.root.glob("comparisons/*/comparison.json")]
        return sorted(path for path in paths if not path.parent.name.startswith("."))  # as of one that is being written

    def device(self, name: str) -> Path:
        """The folder of one device, by its serial or its name."""
        return self.devices / plain(name)

    def file(self, relative: str) -> Path:
        """The file that a record names, relative to the results folder."""
        return self.root / check_relative_path(relative)

    def relative(self, path: Path) -> str:
        """A path below the results folder as records keep it: relative, with `/`."""
        return path.relative_to(self.root).as_posix()


def folder_name(digest: str) -> str:
    return digest[:_DIGEST_CHARACTERS]


def plain(name: str) -> str:
    """Return the name without what file systems or archives refuse, or take for a path: `virtual:s25` becomes `virtual-s25`."""
    return re.sub(r"^\.|[^A-Za-z0-9_.@-]", "-", name)
