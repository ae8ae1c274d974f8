"""Case: something wrong, and what quadbench does with it -> what is wrong with that: one line for each fault."""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from quadbench.errors import QuadbenchError

LONGEST_S = 10.0  # of computing; a wait, which other work on the machine makes longer, has more
LONGEST_WAIT_S = 60.0
MOST_MEMORY_BYTES = 2**30  # beyond what the tests hold themselves
_LONGEST_MESSAGE = 25_000
_EXIT_CODES = {2, 3, 4, 5, 6}
# Words by which a message says what was found, and what would have been right.
_SAYS = re.compile(
    r"expected|known:|Hint: |takes |reads |at most|deeper than|not YAML|not UTF-8|is not|cannot|does not|unknown|missing|"
    r"is empty|lacks|has no |is no |no part of|holds no |in quotes|arrived|wrote no |a second time|after the footer|"
    r"is damaged|duplicate|not supported",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A wrong input. `act` is called with an empty folder of its own, writes the input there and gives it to quadbench.

    `names` must stand in the message; {folder} in it is the case's own. `may_pass`: some of what is drawn is harmless, so that
    only how it is refused is judged.
    """

    name: str
    act: Callable[[Path], object]
    names: str = ""
    may_pass: bool = False


class HangError(BaseException):
    """The error of a case that takes too long; no code of quadbench may take it for one of its own."""


def faults_of(case: Case, folder: Path) -> list[str]:
    """Return what is wrong with how quadbench takes a case, which has `folder/inside` to itself and works beside it."""
    inside = folder / "inside"
    inside.mkdir(parents=True)
    (folder / "outside").mkdir()
    (folder / "outside/kept").write_text("kept")
    before, memory_bytes = _tree(folder, inside), _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    try:
        with chdir(folder / "outside"), _limited():
            case.act(inside)
    except QuadbenchError as error:
        faults = list(_of_message(case, error, inside))
    except HangError:
        faults = [f"it computes for more than {LONGEST_S:g} s, or waits for more than {LONGEST_WAIT_S:g} s"]
    except Exception as error:  # whatever would be a traceback for the user
        faults = [f"uncaught {type(error).__name__}: {str(error)[:300]}"]
    else:
        faults = [] if case.may_pass else ["it is accepted"]
    if (more_bytes := _resident("VmHWM") - memory_bytes) > MOST_MEMORY_BYTES:
        faults.append(f"it takes {more_bytes} bytes of memory")
    if _tree(folder, inside) != before:
        faults.append("something was written outside its folder")
    return [f"{case.name}: {fault}" for fault in faults]


@contextmanager
def _limited() -> Iterator[None]:
    def end(_number: int, _frame: FrameType | None) -> None:
        raise HangError

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, LONGEST_S), signal.ITIMER_REAL: (signal.SIGALRM, LONGEST_WAIT_S)}
    before = {number: signal.signal(number, end) for number, _ in timers.values()}
    for timer, (_, seconds) in timers.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _of_message(case: Case, error: QuadbenchError, inside: Path) -> Iterator[str]:
    text = str(error)
    if error.exit_code not in _EXIT_CODES:
        yield f"exit code {error.exit_code}: {text[:300]}"
    if case.names.replace("{folder}", str(inside)) not in text:
        yield f"the message does not name {case.names!r}: {text[:300]}"
    if not _SAYS.search(text):
        yield f"the message does not say what was expected: {text[:300]}"
    if len(text) > _LONGEST_MESSAGE:
        yield f"the message has {len(text)} characters"


def _resident(key: str) -> int:
    """Return what this process holds of the memory, or with VmHWM has held at most."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def _tree(root: Path, but: Path) -> list[tuple[str, int]]:
    """Return the paths and sizes below a folder, without those below another."""
    paths = (path for path in root.rglob("*") if not path.is_relative_to(but))
    return sorted((str(path), path.lstat().st_size if path.is_file() else 0) for path in paths)
