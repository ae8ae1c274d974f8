"""Spoilt disk: a results folder that is full, read-only or gone as a stage of a run begins -> what is said, and what is left.

Runs on a file system of its own (`small_disk`), all stages one after the other in one process.
"""

import contextlib
import io
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import quadbench.cli.run
from quadbench.cli import main
from quadbench.cli.console import RunConsole
from quadbench.pipeline import session, steps
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import load_run

# What of the results folder is taken away first, so that the stage has work to do.
STAGES = {"build": "bundles", "compile": "compiled", "push": "devices/local/objects", "measure": "", "store": "", "report": ""}


@dataclass(frozen=True, kw_only=True)
class Spoilt:
    """The end of a command whose results folder was spoilt, and of the same command once the folder was right again.

    `lost` are records that were there before and are not any more; `left` are files that were begun.
    """

    stage: str
    exit_code: int
    said: str
    lost: int
    added: int
    next_exit_code: int
    next_said: str
    left: list[str]


class Disk:
    """A results folder on a small disk, with a run, and the ways to spoil and to mend it."""

    def __init__(self, disk: Path, recipe: Path, bundles: Path, fill: Callable[[], None]) -> None:
        self._results, self._elsewhere, self._filler = disk / "results", disk / "elsewhere", disk / "filler"
        self._recipe, self._spoil = recipe, {"full": fill, "read-only": self._seal, "gone": self._move}
        self._is_sealed = False
        shutil.copytree(bundles, self._results / "bundles")
        assert self._run() == (0, ""), self._run()

    def spoilt(self, stage: str, fault: str) -> Spoilt:
        """Run while the folder is spoilt as the stage begins; then mend the folder and run again."""
        if STAGES[stage]:
            shutil.rmtree(self._results / STAGES[stage])
        before = self._records()
        with _struck(stage, self._spoil[fault]) as strikes:
            exit_code, said = self._run()
        assert strikes, f"'{stage}' was not reached: {said}"
        self._mend()
        after = self._records()
        next_exit_code, next_said = self._run()
        load_run(Layout(self._results))
        return Spoilt(
            stage=stage,
            exit_code=exit_code,
            said=said,
            lost=len(before - after),
            added=len(after - before),
            next_exit_code=next_exit_code,
            next_said=next_said,
            left=[str(p) for p in self._results.rglob("*") if p.name.startswith(".") or p.suffix in (".tmp", ".part")],
        )

    def _seal(self) -> None:
        """Mount the folder on itself, to be read only; what is open already stays as it is, as on a disk with errors."""
        for words in (["--bind", self._results, self._results], ["-o", "remount,ro,bind", self._results]):
            subprocess.run(["mount", *words], check=True)
        self._is_sealed = True

    def _move(self) -> None:
        self._results.rename(self._elsewhere)

    def _mend(self) -> None:
        self._filler.unlink(missing_ok=True)
        if self._is_sealed:
            subprocess.run(["umount", "-l", self._results], check=True)
            self._is_sealed = False
        if self._elsewhere.exists():
            shutil.rmtree(self._results, ignore_errors=True)
            self._elsewhere.rename(self._results)

    def _run(self) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            exit_code = main(["run", str(self._recipe), "--devices", "local", "--results", str(self._results)])
        return exit_code, " ".join(said.getvalue().split()) if exit_code else ""

    def _records(self) -> set[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self._results / "quadbench.sqlite")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            columns = "r.record_id, r.status, (SELECT count(*) FROM samples s WHERE s.record = r.id)"
            return set(database.execute(f"SELECT {columns} FROM records r"))


@contextlib.contextmanager
def _struck(stage: str, spoil: Callable[[], None]) -> Iterator[list[str]]:
    """Spoil the folder once, when the stage begins."""
    strikes: list[str] = []

    def strike(name: str) -> None:
        if name == stage and not strikes:
            strikes.append(name)
            spoil()

    class StruckConsole(RunConsole):
        """The console of a run, at whose steps the folder is spoilt."""

        def stage_step(self, stage: str, detail: str, share: float | None = None) -> None:
            strike({"harness": "push"}.get(stage, stage))
            super().stage_step(stage, detail, share)

        def launch_started(self, *words: Any) -> None:
            strike("measure")
            super().launch_started(*words)

    def before(name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def struck(*words: Any) -> Any:
            strike(name)
            return action(*words)

        return struck

    places: tuple[tuple[Any, str, Any], ...] = (
        (quadbench.cli.run, "RunConsole", StruckConsole),
        (session, "store_record", before("store", session.store_record)),
        (steps, "write_report", before("report", steps.write_report)),
    )
    kept = [(module, name, getattr(module, name)) for module, name, _ in places]
    for module, name, other in places:
        setattr(module, name, other)
    try:
        yield strikes
    finally:
        for module, name, original in kept:
            setattr(module, name, original)


def tell(spoilt: Spoilt) -> str:
    """Return it as a line of JSON."""
    return json.dumps(asdict(spoilt))
