"""Forked programs: Python code -> a process of its own, forked where quadbench has been imported, which takes a second."""

import os
import sys
from collections.abc import Mapping
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

_PATIENCE_S = 120.0
_PRELOADED = (
    "__main__", "quadbench.cli.report", "quadbench.cli.run", "quadbench.devices.lab.held", "quadbench.farm.store.artifacts",
    "quadbench.farm.store.opening", "quadbench.kits.store", "quadbench.measure.launch", "quadbench.report.html",
)  # fmt: skip


class Forked:
    """A process that runs the code as `python -c` does, with its standard streams in pipes."""

    def __init__(self, code: str, *arguments: str | Path) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload([*_PRELOADED])
        (stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr) = os.pipe(), os.pipe(), os.pipe()
        theirs = [Connection(stdin, writable=False), Connection(stdout, readable=False), Connection(stderr, readable=False)]
        self._process = context.Process(
            target=_run, args=(code, [*map(str, arguments)], dict(os.environ), str(Path.cwd()), theirs), daemon=True
        )
        self._process.start()
        for connection in theirs:
            connection.close()
        self.stdin, self.stdout, self.stderr = os.fdopen(to_stdin, "w"), os.fdopen(from_stdout), os.fdopen(from_stderr)
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """How it ended, as `subprocess` says it; None while it runs."""
        return self._process.exitcode

    def communicate(self, text: str = "") -> tuple[str, str]:
        """Hand it a text, wait until it has ended, and return what it wrote on stdout and on stderr, neither of them much."""
        self.stdin.write(text)
        self.stdin.close()
        with self.stdout, self.stderr:
            said = self.stdout.read(), self.stderr.read()
        self._process.join(_PATIENCE_S)
        return said

    def signal(self, how: int) -> int | None:
        """Send it a signal, wait until it has ended, and return how."""
        os.kill(self.pid, how)
        self._process.join(_PATIENCE_S)
        return self.returncode

    def kill(self) -> None:
        """Kill it, if it has not ended, and wait until it has."""
        self._process.kill()
        self._process.join(_PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()


def told(code: str, *arguments: str | Path) -> str:
    """Run the code to its end, which must be a good one, and return what it wrote on stdout."""
    with Forked(code, *arguments) as process:
        said, errors = process.communicate()
        assert process.returncode == 0, said + errors
        return said


def _run(code: str, arguments: list[str], environment: Mapping[str, str], folder: str, streams: list[Connection]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # it may have children, though it ends with the tests
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    sys.stdout.flush()
