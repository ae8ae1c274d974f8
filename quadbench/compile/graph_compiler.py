"""Graph compiler: compiling graphs one by one in child processes. Finished graphs stay on disk if a later graph fails."""

import json
import logging
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from quadbench.artifacts import MIB, Caveat, Graph
from quadbench.artifacts.bundle import CompileCost, KernelCounts
from quadbench.host import kill_group, start_child
from quadbench.results.digests import code_digests, digest_of
from quadbench.results.layout import folder_name
from quadbench.results.manifest import file_ref, link_file, temporary_folder

SHOWN_LINES = 15
COST = "cost.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """The outcome of a child process. `status` is its exit code: None after a timeout, negative after a signal."""

    status: int | None
    output: str = field(repr=False)
    timeout_s: float

    @property
    def is_ok(self) -> bool:
        return self.status == 0

    @property
    def description(self) -> str:
        """Return how the child process ended (exit code, signal or timeout), as words for an error message."""
        if self.status is None:
            return f"was still running after {self.timeout_s:g} s"
        return f"was terminated by signal {-self.status}" if self.status < 0 else f"ended with exit code {self.status}"

    @property
    def last_lines(self) -> list[str]:
        return self.output.splitlines()[-SHOWN_LINES:] or ["(no output)"]


def run_subprocess(
    argv: Sequence[str], log: Path, timeout_s: float, environment: Mapping[str, str] | None = None, *, folder: Path | None = None
) -> ProcessResult:
    """Run a command, stop it after `timeout_s` seconds, and write its output to the file `log`. Return its ProcessResult."""
    with log.open("wb") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = start_child(argv, **streams, env=environment, cwd=folder)
        try:
            status: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            kill_group(process.pid)
            process.wait()
    return ProcessResult(status=status, output=log.read_text(errors="replace"), timeout_s=timeout_s)


@dataclass(frozen=True, kw_only=True)
class CompileResult:
    """The result of compiling a bundle. `costs` and `kernels` are dicts from graph path to CompileCost and KernelCounts."""

    graphs: tuple[Graph, ...]
    versions: dict[str, str] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()
    costs: dict[str, CompileCost] = field(default_factory=dict)
    kernels: dict[str, KernelCounts] = field(default_factory=dict)


class SingleGraphCompiler(ABC):
    """The base class of compilers that compile one graph at a time, because a large graph needs gigabytes of memory."""

    name: ClassVar[str]
    suffix: ClassVar[str]  # file suffix of compiled graphs

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the compiler's versions and settings as a dict by name. A retry reuses graphs compiled with an equal dict."""

    @abstractmethod
    def compile_one(self, name: str, source: Path, product: Path) -> int:
        """Compile the graph `source`, named `name` in the bundle, to `product`. Return the compiler's peak memory in bytes."""

    def compile_all(self, graphs: Sequence[Graph], source: Path, folder: Path, notify: Callable[[str], None]) -> CompileResult:
        """Compile graphs one by one into `folder`, and return a CompileResult. A retry after a failure reuses finished graphs."""
        store = folder.parent / f".{self.name}"
        made_by = {**self.versions(), "code": code_digests(type(self).__module__)}
        places = {g.file.path: store / folder_name(digest_of({"graph": g.file.sha256, **made_by})) for g in graphs}
        products, costs = [], {}
        for graph in graphs:
            name, target = graph.file.path, (folder / graph.file.path).with_suffix(self.suffix)
            notify(name)
            try:
                cost = self._take(places[name], target)
            except FileNotFoundError:
                cost = self._compile(name, source / name, places[name], target)
            log.info("compile: %s, %.1f s, %.0f MB", name, cost.seconds, cost.peak_memory_bytes / MIB)
            products.append(replace(graph, file=file_ref(folder, target)))
            costs[name] = cost
        with removed_if_empty(store):
            for place in places.values():
                shutil.rmtree(place, ignore_errors=True)
        return CompileResult(graphs=tuple(products), costs=costs)

    def _compile(self, name: str, source: Path, place: Path, target: Path) -> CompileCost:
        """Compile a graph to `target`; return its CompileCost. Store graph and cost in `place`, in case a later graph fails."""
        with removed_if_empty(place.parent), temporary_folder(place) as work:
            started = time.monotonic()
            peak = self.compile_one(name, source, work / f"product{self.suffix}")
            cost = CompileCost(seconds=round(time.monotonic() - started, 3), peak_memory_bytes=peak)
            (work / COST).write_text(json.dumps(asdict(cost)))
            cost = self._take(work, target)
            with suppress(OSError):  # another process has compiled the same graph first
                work.rename(place)
        return cost

    def _take(self, place: Path, target: Path) -> CompileCost:
        """Hard-link the compiled graph from folder `place` to the file `target`. Return the CompileCost that `place` stores."""
        cost = CompileCost(**json.loads((place / COST).read_text()))
        link_file(place / f"product{self.suffix}", target)
        return cost


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove the folder at the end of the `with` block if it is empty."""
    try:
        yield
    finally:
        with suppress(OSError):  # the folder is not empty
            folder.rmdir()
