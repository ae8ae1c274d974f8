"""Graph passes, each left out, and forms that graphs are not given: what it does on the CPU and on Qualcomm's HTP, as one table.

    python bench/passes.py --out FILE.jsonl [--only WORD] [--rounds 40] [--cpu-only]

The U-Net of the quickstart with its LoRA inputs, and its text encoder, quantized W8A16 from the feeds that a build takes. The
first row of a graph is the one that is built; every other differs from it in one thing, and computes the same in float, which is
checked. CPU: the time of one thread, medians, the two graphs taking turns as A B B A. HTP: v79, compiled here and run once on the
emulator, with its profile. One line is added to FILE for each row; what FILE holds already is not measured again.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from pass_forms import (
    Factors,
    fewer_reshapes,
    group_norm_with_mul_and_add,
    linear_as_conv,
    resize_as_concat,
    scale_in_weights,
    silu_as_quick_gelu,
    silu_in_one_piece,
    single_heads,
    unsigned_factors,
)

from quadbench.artifacts import Component, FileRef, Graph, Variant
from quadbench.compile.qnn import QnnCompiler
from quadbench.errors import BuildError
from quadbench.quad.adapters.adapter import shared_ranks
from quadbench.quad.adapters.lora_profile import lora_profile
from quadbench.quad.model import float_graphs
from quadbench.quad.model.float_graphs import export_component, export_unet
from quadbench.quad.model.initializers import open_session
from quadbench.quad.prepare import BuildSteps, PreparedRecipe, prepare
from quadbench.quad.quantize.encodings import Encoding, quantize
from quadbench.quad.quantize.passes import passes_of
from quadbench.quad.quantize.quantizer import CalibratedGraph, ObservedGraph, write_qdq
from quadbench.quad.runner import Feed
from quadbench.recipe.recipe import load_recipe

COMPILER = QnnCompiler(htp_arch="v79", soc_model=69)
MOST_FLOAT_DIFFERENCE = 1e-4  # of the largest value
TOKEN_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Form:
    """One graph: which passes are left out of it, and what is done to it as a float or a QDQ graph; the one built has neither."""

    title: str
    component: Component = Component.UNET
    without: tuple[str, ...] = ()
    in_float: Callable[[onnx.ModelProto], Factors] | None = None
    in_qdq: Callable[[onnx.ModelProto], None] | None = None
    is_optimized: bool = True  # by the exporter


UNET_FORMS = (
    Form(title="as built"),
    Form(title="without `decompose_group_norm`", without=("decompose_group_norm",)),
    Form(title="a norm's scale and offset as Mul, Add", in_float=group_norm_with_mul_and_add),
    Form(title="without `linear_as_gemm`", without=("linear_as_gemm",)),
    Form(title="second factors UINT16", in_qdq=unsigned_factors),
    Form(title="without the exporter's optimizer", is_optimized=False),
    Form(title="fewer Reshapes between linear layers", in_float=fewer_reshapes),
    Form(title="Linear as 1x1 Conv", in_float=linear_as_conv),
    Form(title="attention in single heads", in_float=single_heads),
    Form(title="attention's scale in the weights", in_float=scale_in_weights),
    Form(title="Resize as Concat", in_float=resize_as_concat),
    Form(title="Sigmoid and Mul as QuickGelu", in_qdq=silu_as_quick_gelu),
    Form(title="nothing quantized between Sigmoid and Mul", in_qdq=silu_in_one_piece),
)
_text = partial(Form, component=Component.TEXT_ENCODER)
TEXT_FORMS = (
    _text(title="as built"),
    _text(title="without `clamp_mask_constants`", without=("clamp_mask_constants",)),
    _text(title="without `split_layer_norm`", without=("split_layer_norm",)),
    _text(title="without `linear_as_gemm`", without=("linear_as_gemm",)),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A form as it was measured; None where HTP refuses it. `cpu_ratio` is its time by that of the graph as built."""

    component: str
    title: str
    nodes: int
    quantize: int
    dequantize: int
    size_bytes: int
    cpu_ms: float
    cpu_ratio: float
    cpu_db: float  # CPU against float
    failure: str | None = None
    context_bytes: int | None = None
    compile_s: float | None = None
    htp_operations: int | None = None  # those that the emulator's profile has cycles for
    htp_db: float | None = None  # HTP against CPU


@dataclass(kw_only=True)
class Bench:
    """A component before its passes, what calibrates it and what it is measured with; `lora` are its LoRA inputs' encodings."""

    component: Component
    feeds: list[Feed]
    feed: Feed
    lora: dict[str, Encoding]
    export: Callable[[], onnx.ModelProto]
    raw: dict[bool, onnx.ModelProto] = field(default_factory=dict)  # by Form.is_optimized

    def float_graph(self, form: Form) -> tuple[onnx.ModelProto, Factors]:
        if form.is_optimized not in self.raw:
            with _exporting(form.is_optimized):
                self.raw[form.is_optimized] = self.export()
        model = onnx.ModelProto()
        model.CopyFrom(self.raw[form.is_optimized])
        for rewrite in passes_of(self.component):
            if rewrite.__name__ not in form.without:  # type: ignore[attr-defined]
                rewrite(model)
        return model, form.in_float(model) if form.in_float else {}

    def graph(self, form: Form) -> tuple[onnx.ModelProto, Feed, np.ndarray]:
        """Return the QDQ graph, its inputs, and the float output of the graph before all passes."""
        model, factors = self.float_graph(form)
        feed = scaled(self.feed, factors)
        (exact,) = open_session(self.raw[form.is_optimized], threads=1).run(None, self.feed)
        (output,) = open_session(model, threads=1).run(None, feed)
        if (difference := np.abs(output - exact).max() / np.abs(exact).max()) > MOST_FLOAT_DIFFERENCE:
            raise ValueError(f"'{form.title}' computes something else: {difference:.1e} of the largest value")
        lora = {name: replace(e, scale=float(np.float32(e.scale * factors.get(name, 1)))) for name, e in self.lora.items()}
        qdq = write_qdq(CalibratedGraph(ObservedGraph(model, [scaled(f, factors) for f in self.feeds])), lora=lora or None).model
        if form.in_qdq:
            form.in_qdq(qdq)
        return qdq, feed | {name: quantize(feed[name], encoding) for name, encoding in lora.items()}, exact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where rows are kept")
    parser.add_argument("--only", default="", help="forms whose title holds this word")
    parser.add_argument("--rounds", type=int, default=40, help="A B B A on the CPU (default: 40)")
    parser.add_argument("--cpu-only", action="store_true", help="compile nothing for HTP")
    parser.add_argument("--emulate", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.emulate:
        emulate(*options.emulate)
        return
    torch.set_num_threads(1)
    rows = [Row(**json.loads(line)) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad(), options.out.open("a") as out:
        prepared = prepare(load_recipe("quickstart"), BuildSteps(lambda _: None), Path(scratch))
        for bench, forms in (
            (unet_bench(prepared, Path(scratch)), UNET_FORMS),
            (text_bench(prepared, Path(scratch)), TEXT_FORMS),
        ):
            built = bench.graph(forms[0])
            for form in forms:
                is_done = any((row.component, row.title) == (form.component.value, form.title) for row in rows)
                if options.only in form.title and not is_done:
                    rows.append(measure(bench, form, built, options))
                    out.write(json.dumps(asdict(rows[-1])) + "\n")
                    out.flush()
    print("\n".join(table(rows)))  # noqa: T201


def unet_bench(prepared: PreparedRecipe, scratch: Path) -> Bench:
    """Calibrate with all inputs that the tasks visit, under their adapters and none; measure with noise under `restyle`."""
    lora = lora_profile(list(prepared.adapters.values()), anchor=None, gauge=True, headroom=1.0, dtype="int16")
    feeds = [
        feed | prepared.feed(adapter)
        for name, visit in prepared.visits.items()
        for adapter in (lora.adapters[name], None)
        for feed in visit.feeds
    ]
    sample = np.random.default_rng(0).standard_normal(feeds[2]["sample"].shape).astype(np.float32)
    ranks = shared_ranks(prepared.adapters.values())
    export = partial(export_unet, prepared.foundation, prepared.foundation.unet, ranks, scratch)
    feed = feeds[2] | {"sample": sample}
    return Bench(component=Component.UNET, feeds=feeds, feed=feed, lora=dict(lora.encodings), export=export)


def text_bench(prepared: PreparedRecipe, scratch: Path) -> Bench:
    """Calibrate with random rows of tokens; measure with a prompt."""
    foundation = prepared.foundation
    prompt = np.array([foundation.tokenize("noto red apple")["input_ids"]], np.int32)
    tokens = np.random.default_rng(0).integers(
        len(foundation.tokenizers["tokenizer"]), size=(TOKEN_ROWS, prompt.size), dtype=np.int32
    )
    feeds = [{"input_ids": row[None]} for row in (*prompt, *tokens)]
    export = partial(export_component, foundation, Component.TEXT_ENCODER, scratch)
    return Bench(component=Component.TEXT_ENCODER, feeds=feeds, feed=feeds[0], lora={}, export=export)


def measure(bench: Bench, form: Form, built: tuple[onnx.ModelProto, Feed, np.ndarray], options: argparse.Namespace) -> Row:
    model, feed, exact = bench.graph(form)
    operators = [node.op_type for node in model.graph.node]
    quantizers, dequantizers = operators.count("QuantizeLinear"), operators.count("DequantizeLinear")
    (output,) = open_session(model, threads=1).run(None, feed)
    cpu_ms, built_ms = times_ms((model, feed), built[:2], options.rounds)
    row = Row(
        component=form.component.value,
        title=form.title,
        nodes=len(operators) - quantizers - dequantizers,
        quantize=quantizers,
        dequantize=dequantizers,
        size_bytes=model.ByteSize(),
        cpu_ms=cpu_ms,
        cpu_ratio=cpu_ms / built_ms,
        cpu_db=sqnr_db(exact, output),
    )
    if options.cpu_only:
        return row
    with tempfile.TemporaryDirectory() as folder:
        return on_htp(row, model, feed, output, Path(folder))


def times_ms(one: tuple[onnx.ModelProto, Feed], other: tuple[onnx.ModelProto, Feed], rounds: int) -> tuple[float, float]:
    """Return the medians of two graphs that take turns: CPU time of the one thread that runs them, whatever else runs."""
    sides = [(open_session(model, threads=1), feed) for model, feed in (one, other)]
    seen: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side in (0, 1, 1, 0):
            session, feed = sides[side]
            started = time.thread_time()
            session.run(None, feed)
            seen[side].append((time.thread_time() - started) * 1000)
    return statistics.median(seen[0]), statistics.median(seen[1])


def on_htp(row: Row, model: onnx.ModelProto, feed: Feed, expected: np.ndarray, folder: Path) -> Row:
    """Return the row with what the compiler and the emulator say; each runs in a process of its own."""
    onnx.save(model, folder / "graph.onnx")
    file = FileRef(path="graph.onnx", sha256="", size_bytes=0)
    graph = Graph(variant=Variant.SHARED, component=Component(row.component), file=file, inputs=(), outputs=())
    compiled = folder / "compiled"
    compiled.mkdir()
    try:
        product = COMPILER.compile_all([graph], folder, compiled, lambda _: None)
    except BuildError as error:
        return replace(row, failure=f"refused: {str(error).splitlines()[1]}")
    (node,) = onnx.load(compiled / "graph.onnx").graph.node
    np.savez(compiled / "feed.npz", **feed)
    command = [sys.executable, __file__, "--emulate", str(compiled / "graph.onnx"), str(compiled)]
    (cost,) = product.costs.values()
    if (status := subprocess.run(command, check=False, capture_output=True).returncode) < 0:
        return replace(row, failure=f"compiles; the emulator ends with signal {-status}", compile_s=cost.seconds)
    return replace(
        row,
        context_bytes=len(next(a.s for a in node.attribute if a.name == "ep_cache_context")),
        compile_s=cost.seconds,
        htp_operations=operations(compiled / "profile.csv"),
        htp_db=sqnr_db(expected, np.load(compiled / "output.npy")),
    )


def operations(profile: Path) -> int:
    """Return the number of operations in a profile, without those fused into another, which are listed with 0 cycles."""
    with profile.open() as file:
        return sum(row["Message"] == "NODE" and int(row["Time"]) > 0 for row in csv.DictReader(file))


def emulate(model: Path, folder: Path) -> None:
    """Run FOLDER/feed.npz through a compiled graph to FOLDER/output.npy, with its profile in FOLDER/profile.csv."""
    import onnxruntime
    import onnxruntime_qnn

    name = "QNNExecutionProvider"
    onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name][:1]
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    profile = {"profiling_level": "detailed", "profiling_file_path": str(folder / "profile.csv")}
    options.add_provider_for_devices(devices, {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), "htp_arch": "79", **profile})
    with np.load(folder / "feed.npz") as feed:
        np.save(folder / "output.npy", onnxruntime.InferenceSession(model, options).run(None, dict(feed))[0])


@contextmanager
def _exporting(is_optimized: bool) -> Iterator[None]:
    """Have graphs exported without their passes, and without the exporter's optimizer too where it is off."""
    own, optimize = float_graphs.passes_of, torch.onnx.ONNXProgram.optimize
    float_graphs.passes_of = lambda _: ()
    if not is_optimized:
        torch.onnx.ONNXProgram.optimize = lambda _: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        float_graphs.passes_of, torch.onnx.ONNXProgram.optimize = own, optimize  # type: ignore[method-assign]


def scaled(feed: Feed, factors: Factors) -> Feed:
    return feed | {name: feed[name] * np.float32(factor) for name, factor in factors.items()}


def sqnr_db(exact: np.ndarray, output: np.ndarray) -> float:
    return float(10 * np.log10(np.square(exact).sum() / max(np.square(exact - output).sum(), 1e-30)))


def table(rows: list[Row]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [
        "| graph | form | nodes | Q | DQ | bytes | CPU, ms | CPU, of as built | CPU against float, dB | HTP | context, bytes "
        "| compiled in, s | HTP operations | HTP against CPU, dB |",
        "|---" * 14 + "|",
    ]
    for row in rows:
        counts = (f"{n:,}" for n in (row.nodes, row.quantize, row.dequantize, row.size_bytes))
        cpu = (f"{row.cpu_ms:.1f}", f"{row.cpu_ratio:.2f}", f"{row.cpu_db:.1f}")
        htp = (
            ("runs", f"{row.context_bytes:,}", f"{row.compile_s:.1f}", f"{row.htp_operations}", f"{row.htp_db:.1f}")
            if row.htp_db is not None
            else ()
        )
        cells = (row.component, row.title, *counts, *cpu, *(htp or (row.failure or "not tried", "", "", "", "")))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
