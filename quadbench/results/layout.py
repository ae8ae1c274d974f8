"""The paths of all files and folders in a results folder. No other module knows their names."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts import Variant
from quadbench.artifacts.safe_text import can_name_file, check_file_name, check_relative_path

_DIGEST_CHARACTERS = 16  # in a folder's name: enough to be unique
_REMOVED = ".removed"
DEFAULT_ROOT = Path("results")


class _Place:
    """A descriptor of a fixed path in a results folder: with `runs = _Place("runs")`, `layout.runs` is `layout.root / "runs"`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, layout: "Layout", _: type["Layout"]) -> Path:
        return layout.root / self._path


@dataclass(frozen=True)
class Layout:
    """The paths in a results folder, which may be missing. Printed commands show the folder as `display_root` if that is set.

    A name that is no valid file name, or a path that leads out of the folder, is a ValueError.
    """

    root: Path
    display_root: str | None = None

    database = _Place("quadbench.sqlite")  # the records, unless they are in PostgreSQL
    bundles = _Place("bundles")
    scratch = _Place("bundles/scratch")  # large weights of running builds
    parts = _Place("parts")  # of builds, each a folder named by its digest
    compiled_bundles = _Place("compiled")  # each a folder named by its digest
    frozen_bundles = _Place("frozen")  # permanent names of bundles, a small file each
    checkpoints = _Place("distill")  # for resuming an interrupted distillation
    programs = _Place("harness")  # the harness's builds
    kits = _Place("kits")  # each a folder named by its digest
    devices = _Place("devices")  # files and locks of devices, and the storage of virtual devices
    runs = _Place("runs")  # each a folder named by its id
    at_work = _Place("at-work")  # the progress of every running command
    ledger = _Place("ai-hub.json")  # a list of the files that AI Hub already has
    admitted = _Place("admitted.json")  # the name of the bundle that the latest admission made
    night_lock = _Place("nights/lock")  # held by the nightly run in progress, which it names

    def command(self, *words: str) -> str:
        """Return the shell text of a quadbench command line: the given words and the option `--results` for this folder."""
        return f"quadbench {shlex.join((*words, *self.root_arguments))}"

    @property
    def root_arguments(self) -> tuple[str, ...]:
        """Return the option `--results FOLDER` for this folder as command-line words, or no words for the default folder."""
        return () if self.root == DEFAULT_ROOT else ("--results", self.display_root or str(self.root))

    @property
    def doctor(self) -> "Layout":
        """Return a Layout of the subfolder `doctor`, where `quadbench doctor` stores test launches that belong to no run."""
        return Layout(self.root / "doctor")

    def progress(self, name: str) -> Path:
        """Return the path of the JSON file with a running command's progress. `name` is the file name without its extension."""
        return self.at_work / f"{name}.json"

    def bundle(self, digest: str) -> Path:
        return self.bundles / folder_name(digest)

    def frozen(self, name: str) -> Path:
        """Return the path of a frozen bundle's JSON file, which stores the permanent name `name` and the bundle's digest."""
        return self.frozen_bundles / f"{check_file_name(name)}.json"

    def compiled_bundle(self, digest: str) -> Path:
        return self.compiled_bundles / folder_name(digest)

    def kit(self, digest: str) -> Path:
        return self.kits / folder_name(digest)

    def run(self, run_id: str) -> Path:
        return self.runs / check_file_name(run_id)

    def removed_run(self, run_id: str) -> Path:
        """Return the path to which a run's folder is renamed while the folder and its records are being removed."""
        return self.runs / f".{check_file_name(run_id)}{_REMOVED}"

    def half_removed_runs(self) -> list[str]:
        """Return the ids of runs whose removal was interrupted, or is still in progress."""
        names = (path.name[1:].removesuffix(_REMOVED) for path in self.runs.glob(f".*{_REMOVED}"))
        return sorted(filter(can_name_file, names))

    def run_file(self, run_id: str) -> Path:
        """Return the path of a run's run.json, which stores settings, bundles and devices. The database stores launch records."""
        return self.run(run_id) / "run.json"

    def scores(self, run_id: str) -> Path:
        return self.run(run_id) / "quality.json"

    def launch(self, run_id: str, address: str, variant: Variant, launch: int) -> Path:
        """Return the path of the folder that holds a launch's plan.json, events.jsonl and images."""
        return self.run(run_id) / plain_name(address) / f"{variant}-{launch}"

    def report(self, run_id: str) -> Path:
        return self.root / "reports" / f"{check_file_name(run_id)}.html"

    def night(self, night_id: str) -> Path:
        return self.root / "nights" / check_file_name(night_id)

    def night_ids(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("nights/*/"))

    def sweep(self, sweep_id: str) -> Path:
        return self.root / "sweeps" / check_file_name(sweep_id)

    def comparison(self, comparison_id: str) -> Path:
        return self.root / "comparisons" / check_file_name(comparison_id)

    def studies(self) -> list[Path]:
        """Return the paths of all sweep.json and comparison.json files. Each lists the runs of its sweep or comparison."""
        paths = [*self.root.glob("sweeps/*/sweep.json"), *self.root.glob("comparisons/*/comparison.json")]
        return sorted(path for path in paths if not path.parent.name.startswith("."))  # hidden folders are still being written

    def device(self, name: str) -> Path:
        """Return the folder for the files and locks of one device, given its serial or name."""
        return self.devices / plain_name(name)

    def file(self, relative: str) -> Path:
        """Return the full path of a file from its path relative to the results folder. Records store relative paths."""
        return self.root / check_relative_path(relative)

    def relative(self, path: Path) -> str:
        """Return a path relative to the results folder, with `/` as separator. Records store paths in this form."""
        return path.relative_to(self.root).as_posix()


def folder_name(digest: str) -> str:
    return digest[:_DIGEST_CHARACTERS]


def plain_name(name: str) -> str:
    """Return a name without characters that file systems or archives refuse: `virtual:s25` becomes `virtual-s25`."""
    return re.sub(r"^\.|[^A-Za-z0-9_.@-]", "-", name)
