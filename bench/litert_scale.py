"""A recipe or a bundle -> what writing its shared graphs for LiteRT and compiling them for a chip takes, as Markdown.

    python bench/litert_scale.py RECIPE_OR_BUNDLE [--soc SM8750] [--most-gb 24] [--results DIR]

A recipe is built if its bundle is not there yet. Each graph is written, and then written and compiled, by the process that
`quadbench compile` runs for it. Its time is elapsed time. Its memory is what it and all processes that it started hold together
(resident, summed, looked at ten times a second), at most, and beside it the most that any of them has held (VmHWM). A graph whose
processes hold more than `--most-gb` together is ended, and its row says so.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from quadbench import pipeline
from quadbench.artifacts import Bundle, Component, Graph, StoredBundle, Variant
from quadbench.cli.console import RunConsole
from quadbench.compile import litert
from quadbench.compile.litert import operators_of
from quadbench.compile.litert_sdk import sdk_for, search_path
from quadbench.host import kill_group, python_module, start_child
from quadbench.quad.bundle_search import bundle_folder
from quadbench.quad.inputs import read_recipe
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest

GB, MB = 1e9, 1e6
PERIOD_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds and bytes that a graph took. `most_bytes` are of all processes together, `one_bytes` of the largest alone."""

    seconds: float
    most_bytes: int
    one_bytes: int
    fault: str | None = None

    def __str__(self) -> str:
        return f"{self.seconds:.1f} | {self.most_bytes / GB:.2f} | {self.one_bytes / GB:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="RECIPE_OR_BUNDLE")
    parser.add_argument("--soc", default="SM8750")
    parser.add_argument("--most-gb", type=float, default=24)
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    print("| graph | ONNX, MB | .tflite, MB | s | GB | largest, GB | compiled, MB | s | GB | largest, GB | operators |")  # noqa: T201
    print("|---|---|---|---|---|---|---|---|---|---|---|")  # noqa: T201
    with tempfile.TemporaryDirectory(prefix="litert-scale-") as folder:
        for row in rows(_bundle(options.source, Layout(options.results)), options.soc, options.most_gb * GB, Path(folder)):
            print(row, flush=True)  # noqa: T201


def rows(bundle: StoredBundle, soc: str, most_bytes: float, folder: Path) -> Iterator[str]:
    """Yield a row for each shared graph, the VAE's halves last: they take longest. What was made is deleted again."""
    shared = [graph for graph in bundle.artifact.graphs if graph.variant is Variant.SHARED]
    for graph in sorted(shared, key=lambda graph: graph.component in (Component.VAE_ENCODER, Component.VAE_DECODER)):
        yield _row(graph, bundle.path(graph.file), soc, most_bytes, folder)


def _row(graph: Graph, source: Path, soc: str, most_bytes: float, folder: Path) -> str:
    written, compiled = folder / "written.tflite", folder / "compiled.tflite"
    writing = _cost([str(source), str(written)], dict(os.environ), most_bytes, written)
    cells = [graph.component.value, f"{graph.file.size_bytes / MB:.1f}", _size(written), str(writing)]
    operators = len(operators_of(written)) if written.exists() else 0
    environment = {**os.environ, "LD_LIBRARY_PATH": search_path(sdk_for(soc), folder, os.environ)}
    compiling = _cost([str(source), str(compiled), "--soc", soc], environment, most_bytes, compiled)
    cells += [_size(compiled), str(compiling)]
    left = operators_of(compiled) if compiled.exists() else []
    parts = left.count(litert.DISPATCH)
    of_all = f"{operators:,} in {parts} part{'' if parts == 1 else 's'}, {len(left) - parts} left"
    cells.append("; ".join(filter(None, (of_all if left else "", writing.fault, compiling.fault))))
    for path in folder.iterdir():
        path.unlink()
    return f"| {' | '.join(cells)} |"


def _cost(words: list[str], environment: dict[str, str], most_bytes: float, product: Path) -> Cost:
    """Run the process of a graph, and look at it and its children until it ends."""
    argv, began, most, largest = python_module(litert.__name__, *words), time.monotonic(), 0, 0
    log = product.with_suffix(".log")
    with log.open("wb") as output:
        process = start_child(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment)
    fault = None
    try:
        while process.poll() is None:
            held = _held(process.pid)
            most, largest = max(most, sum(now for now, _ in held)), max([largest, *(peak for _, peak in held)])
            if most > most_bytes:
                fault = f"ended at {most / GB:.1f} GB"
                break
            time.sleep(PERIOD_S)
    finally:
        kill_group(process.pid)
    seconds = time.monotonic() - began
    if process.wait() and not fault:
        fault = f"ended with {process.returncode}: {log.read_text(errors='replace').strip()[-200:]}"
    return Cost(seconds=seconds, most_bytes=most, one_bytes=largest, fault=fault or _refusal(product))


def _held(pid: int) -> list[tuple[int, int]]:
    """Return for a process and all below it what it holds now and the most that it has held."""
    held = []
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    for process in processes:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        held.append((_kib(status, "VmRSS:"), _kib(status, "VmHWM:")))
    return held


def _kib(status: str, key: str) -> int:
    words = status.partition(key)[2].split()  # none of a process that has just ended
    return int(words[0]) * 1024 if words else 0


def _refusal(product: Path) -> str | None:
    outcome = product.with_suffix(litert.OUTCOME)
    told = json.loads(outcome.read_text()) if outcome.exists() else {}
    return told.get("refused") or (f"the compiler fails: {told['said'].strip()[-200:]}" if told.get("failed") else None)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / MB:.1f}" if path.exists() else ""


def _bundle(text: str, layout: Layout) -> StoredBundle:
    if folder := bundle_folder(text):
        return read_manifest(folder, Bundle)
    with RunConsole(Console(stderr=True)) as observer:
        return pipeline.ensure_bundle(read_recipe(text), layout=layout, observer=observer)


if __name__ == "__main__":
    main()
