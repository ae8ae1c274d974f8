"""Apart: a command -> how it ended and what it said, in a process of its own that is gone afterwards with all its children."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quadbench.host import kill_group, start_bound

SHOWN_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The end of a process, and everything that it said. `status` is None where it took too long, negative after a signal."""

    status: int | None
    said: str = field(repr=False)
    timeout_s: float

    @property
    def is_ok(self) -> bool:
        """Say whether it ended with exit code 0."""
        return self.status == 0

    @property
    def words(self) -> str:
        """Return the end in words, for an error."""
        if self.status is None:
            return f"was still running after {self.timeout_s:g} s"
        return f"was ended by signal {-self.status}" if self.status < 0 else f"ended with exit code {self.status}"

    @property
    def last_lines(self) -> list[str]:
        """Return the last lines of its output."""
        return self.said.splitlines()[-SHOWN_LINES:] or ["it said nothing"]


def run_apart(
    argv: Sequence[str], log: Path, timeout_s: float, environment: Mapping[str, str] | None = None, *, folder: Path | None = None
) -> Ending:
    """Run a command, its output in the file `log`; by default it inherits this process's environment and working folder."""
    with log.open("wb") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = start_bound(argv, **streams, env=environment, cwd=folder)
        try:
            status: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            kill_group(process.pid)
            process.wait()
    return Ending(status=status, said=log.read_text(errors="replace"), timeout_s=timeout_s)
