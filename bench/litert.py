"""The same bundle on ONNX Runtime and on LiteRT, on this machine's CPU: how near to float, and what graphs take.

    python bench/litert.py BUNDLE_DIR [--items 1] [--results DIR] [--soc SM8750]

For every task the first evaluation inputs. Along the float U-Net's own trajectory, all others are fed what it was: the shared
graph in ONNX Runtime, the same graph in LiteRT's dialect there, which is what symmetric activations cost, and the .tflite file in
LiteRT. The pictures are each runtime's own from text and image to pixels, against the float reference in the bundle. CPU times
are those of this machine on one thread. With `--soc` Qualcomm's compiler makes contexts both ways, by onnxruntime-qnn and by
LiteRT.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from ai_edge_litert.interpreter import Interpreter

from quadbench.artifacts import Bundle, Component, StoredBundle, TaskAssets, TaskItem, Variant
from quadbench.artifacts.pixels import read_pixels
from quadbench.compile import compile_bundle
from quadbench.compile.tflite import reencode_for_litert
from quadbench.quad.held_out_inputs import along_trajectory
from quadbench.quad.runner import Feed, GraphSession
from quadbench.quality.trajectories import TaskModel
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_checked
from quadbench.target.targets import LiteRtTarget, QnnTarget, Target, target_key

HTP = {"SM8750": ("v79", 69)}
TIMED_RUNS = 10


class LiteRtSession:
    """A .tflite file with its single output, as `GraphSession` is a graph."""

    def __init__(self, path: Path) -> None:
        self._runner: Any = Interpreter(str(path), num_threads=1).get_signature_runner()

    def __call__(self, feed: Feed) -> torch.Tensor:
        return torch.from_numpy(next(iter(self._runner(**feed).values())).copy())


Session = Callable[[Feed], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The graphs of all components, in one runtime."""

    name: str
    sessions: dict[Component, Session]

    def of(self, model: TaskModel) -> TaskModel:
        """Return a task's model with this runtime's graphs."""
        encoders = {"text_encoder": self.sessions[Component.TEXT_ENCODER]}
        if model.vae_encoder is not None:
            encoders["vae_encoder"] = self.sessions[Component.VAE_ENCODER]
        return replace(model, unet=self.sessions[Component.UNET], **encoders)

    def picture(self, model: TaskModel, item: TaskItem) -> np.ndarray:
        """Return an item's picture, (H, W, 3) in 8 bits."""
        latent = np.asarray(self.of(model).run(item).latent, np.float32)
        image = self.sessions[Component.VAE_DECODER]({"latent": latent}).numpy()[0]
        return np.rint(np.clip((image + 1) / 2, 0, 1) * 255).transpose(1, 2, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--items", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--soc", choices=sorted(HTP))
    options = parser.parse_args()
    bundle, layout = read_checked(options.bundle, Bundle), Layout(options.results)
    shared = tuple(graph for graph in bundle.artifact.graphs if graph.task is None)
    bundle = replace(bundle, artifact=replace(bundle.artifact, graphs=shared))
    lines = [*_tasks(bundle, layout, options.items), "", *_graphs(bundle, layout), "", *_contexts(bundle, layout, options.soc)]
    print("\n".join(lines))  # noqa: T201


def _tasks(bundle: StoredBundle, layout: Layout, items: int) -> Iterator[str]:
    yield "| task | ONNX Runtime | the dialect there | LiteRT | LiteRT against the dialect | PSNR, ONNX Runtime | PSNR, LiteRT |"
    yield "|---|---|---|---|---|---|---|"
    runtimes = [_onnx_runtime(bundle), _onnx_runtime(bundle, reencode_for_litert), _litert(bundle, layout)]
    for task in bundle.artifact.tasks:
        print(task.name, file=sys.stderr)  # noqa: T201
        exact, shared = (TaskModel.load(bundle, task, variant) for variant in (Variant.FLOAT, Variant.SHARED))
        runs = [exact.run(item) for item in task.items[:items]]
        feeds = [feed for run in runs for feed in run.feeds]
        of_float = [np.asarray(eps) for run in runs for eps in run.eps]
        eps = [[runtime.of(shared).predict(feed).numpy() for feed in feeds] for runtime in runtimes]
        pairs = [*((of_float, of_one) for of_one in eps), (eps[1], eps[2])]
        figures = [along_trajectory([0.0] * len(feeds), range(len(feeds)), *pair)[0] for pair in pairs]
        psnr = [_psnr(bundle, runtime, shared, task, items) for runtime in (runtimes[0], runtimes[2])]
        yield f"| `{task.name}` | " + " | ".join(f"{figure:.1f}" for figure in [*figures, *psnr]) + " |"


def _psnr(bundle: StoredBundle, runtime: Runtime, model: TaskModel, task: TaskAssets, items: int) -> float:
    """Return the mean PSNR of the first items' pictures against the float reference."""
    values = []
    for item in task.items[:items]:
        reference = np.asarray(read_pixels(bundle.path(item.reference)), np.float64)
        error = np.mean((runtime.picture(model, item) - reference.reshape(*reference.shape[-3:])) ** 2)
        values.append(10 * np.log10(255**2 / error))
    return float(np.mean(values))


def _onnx_runtime(bundle: StoredBundle, change: Callable[[onnx.ModelProto], onnx.ModelProto] = lambda model: model) -> Runtime:
    graphs = _shared(bundle.artifact.graphs)
    sessions = {part: GraphSession(change(onnx.load(bundle.path(graph.file)))) for part, graph in graphs.items()}
    return Runtime(name="ONNX Runtime", sessions=sessions)


def _litert(bundle: StoredBundle, layout: Layout) -> Runtime:
    compiled = _compiled(bundle, LiteRtTarget(backend="litert"), layout)
    graphs = _shared(compiled.artifact.graphs)
    return Runtime(name="LiteRT", sessions={part: LiteRtSession(compiled.path(graph.file)) for part, graph in graphs.items()})


def _shared(graphs: Sequence[Any]) -> dict[Component, Any]:
    return {graph.component: graph for graph in graphs if graph.variant is Variant.SHARED}


def _compiled(bundle: StoredBundle, target: Target, layout: Layout) -> Any:
    return compile_bundle(bundle, target, target_key(target, "x86_64"), layout, htp_arch=None)


def _graphs(bundle: StoredBundle, layout: Layout) -> Iterator[str]:
    """Compare bytes and CPU time of a run, on one thread."""
    yield "| graph | ONNX, bytes | .tflite, bytes | ONNX Runtime, ms | LiteRT, ms |"
    yield "|---|---|---|---|---|"
    compiled = _compiled(bundle, LiteRtTarget(backend="litert"), layout)
    written = _shared(compiled.artifact.graphs)
    for part, graph in _shared(bundle.artifact.graphs).items():
        feed: Feed = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in graph.inputs}
        torch.set_num_threads(1)
        of_onnx, of_litert = GraphSession(onnx.load(bundle.path(graph.file))), LiteRtSession(compiled.path(written[part].file))
        times = [_milliseconds(session, feed) for session in (of_onnx, of_litert)]
        yield f"| {part} | {graph.file.size_bytes:,} | {written[part].file.size_bytes:,} | {times[0]:.1f} | {times[1]:.1f} |"


def _milliseconds(session: Session, feed: Feed) -> float:
    """Return the median CPU time of a run."""
    session(feed)
    times = []
    for _ in range(TIMED_RUNS):
        begin = time.process_time()
        session(feed)
        times.append((time.process_time() - begin) * 1000)
    return float(np.median(times))


def _contexts(bundle: StoredBundle, layout: Layout, soc: str | None) -> Iterator[str]:
    """Compare what the same compiler makes for one chip in two ways, and what that takes."""
    if soc is None:
        return
    yield "| graph | onnxruntime-qnn: bytes | s | MB | LiteRT: bytes | s | MB |"
    yield "|---|---|---|---|---|---|---|"
    htp_arch, number = HTP[soc]
    targets = (QnnTarget(backend="qnn", htp_arch=htp_arch, soc_model=number), LiteRtTarget(backend="litert", soc=soc))
    ways = [_compiled(bundle, target, layout).artifact for target in targets]
    for graph in bundle.artifact.graphs:
        if not graph.variant.is_quantized:
            continue
        cells = []
        for way in ways:
            product = next(g for g in way.graphs if (g.variant, g.component) == (graph.variant, graph.component))
            cost = way.costs[graph.file.path]
            cells += [f"{product.file.size_bytes:,}", f"{cost.seconds:.1f}", f"{cost.peak_memory_bytes / 2**20:.0f}"]
        yield f"| {graph.component} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
