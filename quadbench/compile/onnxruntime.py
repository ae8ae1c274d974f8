"""ONNX Runtime: optimizing QDQ graphs for devices ahead of time, and counting the nodes that compute in integers."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime

from quadbench.artifacts import Caveat, Graph
from quadbench.artifacts.bundle import KernelCounts
from quadbench.compile.cpu_graph import allow_folding, defer_weights, externalize_weights, split_attention
from quadbench.compile.cpu_memory import hide_sizes, split_channels
from quadbench.compile.graph_compiler import CompileResult
from quadbench.compile.lora_branches import ease_compiled_branches, fuse_lora_branches
from quadbench.errors import BuildError, MissingDependencyError
from quadbench.harness.runtime_library import EXACT
from quadbench.lint.linted_graph import DEQUANTIZE, MOVES_VALUES, QUANTIZE, LintedGraph, read_graph
from quadbench.results.manifest import file_ref, link_file

LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}
_MOVES = MOVES_VALUES | {"Concat", "Resize", "Pad", "Cast", "ReorderInput", "ReorderOutput"}
# Integer operators of ONNX and com.microsoft: QLinearConv, QGemm, MatMulIntegerToFloat, DynamicQuantizeMatMul, ...
_IN_INTEGERS = re.compile(r"QLinear|Q[A-Z]|.*Integer|DynamicQuantize")
_PRODUCT = re.compile(r".*(Conv|Gemm|MatMul)")


@dataclass(frozen=True, kw_only=True)
class OnnxRuntimeCompiler:
    """A compiler that writes graphs as ONNX Runtime's graph optimizer rewrites them for an execution provider.

    Its level for CPUs is `extended`, as higher levels lay out memory for this machine's CPU, which may differ from the device's.
    For other execution providers its level is `basic`, as `extended` fuses nodes into ones that only the CPU provider runs.
    """

    execution_provider: str

    def versions(self) -> dict[str, str]:
        """Return ONNX Runtime's version and its graph optimizer's settings, as one dict from name to value."""
        settings = {"optimization": self._level, EXACT[0]: EXACT[1], "execution_provider": self.execution_provider}
        return {"onnxruntime": onnxruntime.__version__, **settings}

    def compile_all(self, graphs: Sequence[Graph], source: Path, folder: Path, notify: Callable[[str], None]) -> CompileResult:
        """Optimize each graph into `folder`, keeping inputs and outputs. Return a CompileResult; for CPUs it has KernelCounts."""
        kernels: dict[str, KernelCounts] = {}
        for graph in graphs:
            name = graph.file.path
            notify(name)
            for file in filter(None, (graph.data, graph.merge)):
                link_file(source / file.path, folder / file.path)
            eased = False
            if self.execution_provider == "cpu":
                with suppress(MissingDependencyError):  # without onnx, runs take longer, with equal results up to rounding
                    eased = fuse_lora_branches(source / name, folder / name)
            self._optimize(name, folder / name if eased else source / name, folder / name)
            if self.execution_provider == "cpu":
                with suppress(MissingDependencyError):  # without onnx nothing is counted; the linter has already warned
                    kernels[name] = kernels_of(read_graph(folder / name))
            allow_folding(folder / name)
            if self.execution_provider == "cpu":
                with suppress(MissingDependencyError):  # without onnx, runs take longer, with the same results
                    ease_compiled_branches(folder / name)
            if graph.data:
                externalize_weights(source / name, folder / name)
            with suppress(MissingDependencyError):  # without onnx, runs take more memory, with the same results
                split_attention(folder / name)
                if self.execution_provider == "cpu":  # others take only nodes of known sizes
                    split_channels(folder / name)
                    hide_sizes(folder / name)
                defer_weights(folder / name)
        is_simulated = any(counts.is_simulated for counts in kernels.values())
        return CompileResult(
            graphs=tuple(replace(graph, file=file_ref(folder, folder / graph.file.path)) for graph in graphs),
            caveats=(Caveat.SIMULATED_INTEGERS,) if is_simulated else (),
            kernels=kernels,
        )

    def _optimize(self, name: str, source: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = LEVELS[self._level]
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry(*EXACT)
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base below Exception
            raise BuildError(f"ONNX Runtime refuses '{name}': {error}") from error

    @property
    def _level(self) -> str:
        return "extended" if self.execution_provider == "cpu" else "basic"


def kernels_of(graph: LintedGraph) -> KernelCounts:
    """Return the KernelCounts of an optimized graph: its integer, float, quantize and dequantize nodes, except data movements."""
    counts = Counter(node.op_type for node in graph.nodes if node.op_type not in _MOVES)
    quantize, dequantize = counts.pop(QUANTIZE, 0), counts.pop(DEQUANTIZE, 0)
    floats = {op: number for op, number in counts.items() if not _IN_INTEGERS.match(op)}
    return KernelCounts(
        in_integers=counts.total() - sum(floats.values()),
        in_float=sum(floats.values()),
        products_in_float=sum(number for op, number in floats.items() if _PRODUCT.match(op)),
        quantize=quantize,
        dequantize=dequantize,
    )
