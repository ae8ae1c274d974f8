"""QNN: quantized graphs -> one context binary for each, which a Qualcomm HTP runs whole, or the nodes that it refuses."""

import json
import logging
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from quadbench.artifacts import MIB, CompileCost, Graph
from quadbench.compile import qnn_process
from quadbench.compile.availability import package_version
from quadbench.compile.product import Product
from quadbench.compile.single_file import CONTEXT_OP, operators
from quadbench.errors import BuildError, MissingDependencyError
from quadbench.host import kill_group, start_bound
from quadbench.results.code import code_digests
from quadbench.results.digests import digest_of
from quadbench.results.layout import folder_name
from quadbench.results.manifest import file_ref, link, temporary_folder

TIMEOUT_S = 4 * 3600.0  # the U-Net of Stable Diffusion 1.5 took 13 minutes on two cores
KEPT, CONTEXT, COST = ".qnn", "context.onnx", "cost.json"
SHOWN_NODES = 8
SHOWN_LINES = 5
_INSTALL_HINT = "pip install 'quadbench[qnn]'"
_UNSUPPORTED = re.compile(r"\{ name: ([^,]+), type: (\w+) \}")
_REASON = re.compile(r"((?:\tOperator type: .*\n)+)\tREASON : (.*)")
_MEMBER = re.compile(r"Operator type: (\S+) Node name: (\S+)")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QnnCompiler:
    """Qualcomm's compiler as ONNX Runtime's plugin brings it, in a process for each graph."""

    htp_arch: str  # v79
    soc_model: int
    timeout_s: float = TIMEOUT_S

    def versions(self) -> dict[str, str]:
        """Return versions and chip, the SDK's version too: a context binary runs on the SDK that wrote it, or a newer one.

        Raises:
            MissingDependencyError: the package onnxruntime-qnn is not installed.
        """
        plugin = package_version("onnxruntime_qnn")
        if plugin is None:
            raise MissingDependencyError("compiling for Qualcomm HTP needs the package onnxruntime-qnn", hint=_INSTALL_HINT)
        return {
            "onnxruntime": package_version("onnxruntime") or "not installed",
            "onnxruntime-qnn": plugin,
            "qairt": _sdk_version(),
            "htp_arch": self.htp_arch,
            "soc_model": str(self.soc_model),
        }

    def compile_all(self, graphs: Sequence[Graph], source: Path, folder: Path, notify: Callable[[str], None]) -> Product:
        """Compile the graphs one after the other: the compiler takes gigabytes for a large graph, and an hour for several.

        Each product is kept beside `folder` until all are there, so that after a failure or Ctrl-C the rest alone is compiled.

        Raises:
            BuildError: it names the nodes that HTP does not take, or tells how the compiler ended.
            MissingDependencyError: as `versions`.
        """
        costs, made_by = {}, {**self.versions(), "code": code_digests(__name__)}
        kept = {g.file.path: folder.parent / KEPT / folder_name(digest_of({"graph": g.file.sha256, **made_by})) for g in graphs}
        for graph in graphs:
            name = graph.file.path
            notify(name)
            try:
                costs[name] = _take(kept[name], folder / name)
            except FileNotFoundError:
                costs[name] = self._compile(name, source / name, kept[name], folder / name)
            log.info("compile: %s, %.1f s, %.0f MB", name, costs[name].seconds, costs[name].peak_memory_bytes / MIB)
        with _gone_if_empty(folder.parent / KEPT):
            for place in kept.values():
                shutil.rmtree(place, ignore_errors=True)
        return Product(graphs=tuple(replace(g, file=file_ref(folder, folder / g.file.path)) for g in graphs), costs=costs)

    def _compile(self, name: str, source: Path, place: Path, target: Path) -> CompileCost:
        """Write the context to `target`, and keep it with its cost in a folder that is complete or absent."""
        with _gone_if_empty(place.parent), temporary_folder(place) as work:
            product, started = work / CONTEXT, time.monotonic()
            ending = self._run(source, product)
            if not ending.is_ok:
                raise self._refusal(name, source, product, ending)
            seconds = round(time.monotonic() - started, 3)
            cost = CompileCost(seconds=seconds, **json.loads(product.with_suffix(".json").read_text()))
            (work / COST).write_text(json.dumps(asdict(cost)))
            if (written := operators(product)) != [CONTEXT_OP]:
                raise BuildError(f"QNN made of '{name}' a graph of {', '.join(written)}; expected one {CONTEXT_OP}")
            cost = _take(work, target)
            with suppress(OSError):  # another process that compiles the same was faster
                work.rename(place)
        return cost

    def _run(self, source: Path, product: Path, *options: str) -> "_Ending":
        chip = ["--htp-arch", self.htp_arch.removeprefix("v"), "--soc-model", str(self.soc_model)]
        argv = [sys.executable, "-m", qnn_process.__name__, str(source), str(product), *chip, *options]
        said = product.with_suffix(".log")
        with said.open("wb") as output:
            process = start_bound(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            try:
                status: int | None = process.wait(self.timeout_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                kill_group(process.pid)
                process.wait()
        return _Ending(status=status, said=said.read_text(errors="replace"), timeout_s=self.timeout_s)

    def _refusal(self, name: str, source: Path, product: Path, ending: "_Ending") -> BuildError:
        """Return an error with the compiler's words; where it left nodes to the CPU, it is run once more to say why."""
        left = dict(_UNSUPPORTED.findall(ending.said))
        if not left:
            return BuildError("\n".join((f"QNN's compiler {ending.words} on '{name}':", *ending.last_lines)))
        reasons = _reasons(self._run(source, product.with_name("explained.onnx"), "--explain").said)
        nodes = [f"{op_type} '{node}' ({reasons.get(node, 'no reason given')})" for node, op_type in left.items()]
        more = [f"and {len(nodes) - SHOWN_NODES} more"] if len(nodes) > SHOWN_NODES else []
        return BuildError(
            "\n".join((f"Qualcomm HTP {self.htp_arch} leaves nodes of '{name}' to the CPU:", *nodes[:SHOWN_NODES], *more)),
            hint="write them as what it takes by a pass over the float graph (docs/qnn.md has the known forms)",
        )


@dataclass(frozen=True, kw_only=True)
class _Ending:
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


def _take(place: Path, target: Path) -> CompileCost:
    """Link the context that was compiled into `place` to `target`, and return its cost.

    Raises:
        FileNotFoundError: none is there.
    """
    cost = CompileCost(**json.loads((place / COST).read_text()))
    link(place / CONTEXT, target)
    return cost


@contextmanager
def _gone_if_empty(folder: Path) -> Iterator[None]:
    """Remove the folder at the end, if nothing is in it then."""
    try:
        yield
    finally:
        with suppress(OSError):  # others are kept in it
            folder.rmdir()


def _reasons(said: str) -> dict[str, str]:
    """Return for each node the reason why HTP refuses it, from a full log. A node is refused with those that quantize for it."""
    return {node: reason for members, reason in _REASON.findall(said) for _, node in _MEMBER.findall(members)}


def _sdk_version() -> str:
    """Return the version that the plugin's package names."""
    spec = find_spec("onnxruntime_qnn.build_and_package_info")
    match = re.search(r"qnn_version = '([^']+)'", Path(spec.origin).read_text()) if spec and spec.origin else None
    return match[1] if match else "unknown"
