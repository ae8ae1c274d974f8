"""Compile a bundle's quantized graphs for a target. Reuse the stored result if graphs, target and compiler are the same.

availability.py    installed compilers and their versions, or missing parts and their installation
graph_compiler.py  graphs compiled one by one in child processes, time limits, kept results
onnxruntime.py     ONNX Runtime's optimizer for CPUs, and counts of integer and float nodes
cpu_graph.py       rewrites for CPUs: attention in pieces, weight folding, node order
cpu_memory.py      rewrites for CPUs: chains of operators in pieces of channels, sizes unknown before a run
lora_branches.py   rewrites for CPUs: LoRA branches, and LoRA inputs of any rank
qnn.py             Qualcomm HTP context binaries, reasons for refused nodes, the HTP emulator
repacking.py       per-graph U-Nets in other files: one context that shares weights, or a base and patches
litert.py          .tflite files for LiteRT's CPU, or for NPUs by a vendor's compiler
tflite/            the writer of .tflite files from quantized ONNX graphs
litert_sdk.py      search for a chip vendor's compiler (SDK), and checks of its release
toolchain.py       a vendor's command-line tools, as a device profile declares them
ai_hub.py          compile and link jobs at AI Hub, after a small trial graph
single_file.py     AI Hub's ONNX model and context binary merged into one file
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, assert_never

from quadbench.ai_hub.hub_jobs import HubRequest
from quadbench.artifacts import Bundle, CompiledBundle, Graph, StoredBundle, StoredCompiled, Variant
from quadbench.compile.graph_compiler import CompileResult
from quadbench.compile.repacking import repacked
from quadbench.errors import BuildError
from quadbench.lint import check_bundle
from quadbench.recipe.settings import FLOAT_LABEL
from quadbench.results.digests import code_digests, digest_of, sha256_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents, publish, read_checked
from quadbench.target.targets import AiHubTarget, LiteRtTarget, OnnxRuntimeTarget, QnnTarget, Target, ToolchainTarget

Notify = Callable[[str], None]


class Compiler(Protocol):
    """The interface of compilers. A compiler gets all graphs in one call, to share weights or to run jobs in parallel."""

    def versions(self) -> dict[str, str]:
        """Return the compiler's versions and settings as a dict from name to text. A compiled bundle's digest covers them."""
        ...

    def compile_all(self, graphs: Sequence[Graph], source: Path, folder: Path, notify: Notify) -> CompileResult:
        """Compile the graphs in `source` into `folder`; return a CompileResult. Call `notify` with a text at each step."""
        ...


def compile_bundle(
    bundle: StoredBundle,
    target: Target,
    key: str,
    layout: Layout,
    *,
    htp_arch: str | None = None,
    notify: Notify = lambda _graph: None,
) -> StoredCompiled:
    """Compile every quantized graph for a target. If an earlier call had the same inputs, return its compiled bundle.

    `key` is the target's short key, `htp_arch` the chip's Qualcomm HTP architecture, if any. Other adapters, sampler tables or
    inputs need no new compilation. Graphs are linted on every call, as `htp_arch` is not part of the inputs.

    Raises:
        BuildError: the target cannot be compiled for here, the linter found errors, or a graph was refused.
        ArtifactError: a graph of the bundle does not match its manifest, or the stored compiled bundle is damaged.
    """
    _refuse_unsupported(bundle.artifact, target, key)
    compiler = _compiler(target, layout)
    graphs, digest = _quantized(bundle.artifact), _digest(bundle.artifact, key, compiler)
    files = [file for graph in graphs for file in (graph.file, graph.data, graph.merge) if file]
    check_contents(bundle, files)  # the digest only covers the manifest
    check_bundle(bundle, htp_arch=htp_arch, target=target)
    if (folder := layout.compiled_bundle(digest)).is_dir():
        return read_checked(folder, CompiledBundle)

    def make(temporary: Path) -> CompiledBundle:
        own = [graph for graph in graphs if not graph.variant.is_repacked]
        product = compiler.compile_all(own, bundle.folder, temporary, notify)
        more, costs = repacked(graphs, product.graphs, compiler, bundle.folder, temporary, notify)
        return CompiledBundle(
            digest=digest,
            parent_digest=graphs_digest(bundle.artifact),
            target=key,
            tool_versions=compiler.versions() | product.versions,
            graphs=product.graphs + more,
            caveats=product.caveats,
            costs=product.costs | costs,
            kernels=product.kernels,
        )

    return publish(folder, make)


def find_compiled(bundle: StoredBundle, target: Target, key: str, layout: Layout) -> StoredCompiled | None:
    """Return the compiled bundle that `compile_bundle` has stored for a bundle and target, or None if none is stored.

    Raises:
        MissingDependencyError: the target cannot be compiled for here.
        ArtifactError: the stored compiled bundle is damaged.
    """
    folder = layout.compiled_bundle(_digest(bundle.artifact, key, _compiler(target, layout)))
    return read_checked(folder, CompiledBundle) if folder.is_dir() else None


def plan_at_hub(bundle: StoredBundle, target: AiHubTarget, key: str, layout: Layout) -> tuple[HubRequest, ...]:
    """Return all requests that `compile_bundle` would send to AI Hub for a bundle, without sending any.

    Raises:
        BuildError: the target cannot run the bundle.
        ArtifactError: a graph of the bundle does not match its manifest.
    """
    from quadbench.compile.ai_hub import AiHubCompiler

    _refuse_unsupported(bundle.artifact, target, key)
    graphs = _quantized(bundle.artifact)
    check_contents(bundle, [graph.file for graph in graphs])
    return AiHubCompiler(target=target, ledger=layout.ledger).plan(graphs, bundle.folder)


def _refuse_unsupported(bundle: Bundle, target: Target, key: str) -> None:
    """Raise BuildError for a baseline or activations that the target cannot run.

    HTP alone has contexts that share weights, AI Hub cannot patch, ONNX Runtime alone takes float activations and merges at load.
    """
    can_serve = {Variant.CONTEXT_SHARED: isinstance(target, QnnTarget), Variant.PATCHED: not isinstance(target, AiHubTarget)}
    for variant in {graph.variant: None for graph in bundle.graphs if not can_serve.get(graph.variant, True)}:
        raise BuildError(
            f"target '{key}' cannot serve tasks by {variant}, a baseline of bundle '{bundle.recipe_name}'",
            hint=f"remove {variant} from the recipe's baselines, or use another target",
        )
    if isinstance(target, OnnxRuntimeTarget):
        return
    if bundle.precision == FLOAT_LABEL:
        raise BuildError(
            f"target '{key}' needs quantized activations; those of bundle '{bundle.recipe_name}' are float ({FLOAT_LABEL})",
            hint="set precision.activations to {scheme: w8a16}, or use a target with the backend onnxruntime",
        )
    if any(graph.merge for graph in bundle.graphs):
        raise BuildError(
            f"target '{key}' needs graphs with fixed weights; bundle '{bundle.recipe_name}' has a graph for merged-at-load",
            hint="remove merged-at-load from the recipe's baselines, or use a target with the backend onnxruntime",
        )


def _digest(bundle: Bundle, key: str, compiler: Compiler) -> str:
    """Return a compiled bundle's digest. It covers quantized graphs, target key, compiler versions and quadbench's own code."""
    modules = (type(compiler).__module__, CompileResult.__module__, repacked.__module__)
    code = {name: digest for module in modules for name, digest in code_digests(module).items()}
    code[__name__] = sha256_of(Path(__file__))
    graphs = [asdict(graph) for graph in _quantized(bundle)]
    return digest_of({"graphs": graphs, "target": key, "versions": compiler.versions(), "code": code})


def graphs_digest(bundle: Bundle) -> str:
    """Return the digest of a bundle's quantized graphs. It is the `parent_digest` of every bundle compiled from these graphs."""
    return digest_of({graph.file.path: graph.file.sha256 for graph in _quantized(bundle)})


def _quantized(bundle: Bundle) -> tuple[Graph, ...]:
    return tuple(graph for graph in bundle.graphs if graph.variant.is_quantized)


def _compiler(target: Target, layout: Layout) -> Compiler:
    match target:
        case OnnxRuntimeTarget():
            from quadbench.compile.onnxruntime import OnnxRuntimeCompiler

            return OnnxRuntimeCompiler(execution_provider=target.execution_provider)
        case QnnTarget():
            from quadbench.compile.qnn import QnnCompiler

            return QnnCompiler(htp_arch=target.htp_arch, soc_model=target.soc_model)
        case LiteRtTarget():
            from quadbench.compile.litert import LiteRtCompiler

            return LiteRtCompiler(soc=target.soc)
        case ToolchainTarget():
            from quadbench.compile.toolchain import ToolchainCompiler

            return ToolchainCompiler(target=target)
        case AiHubTarget():
            from quadbench.compile.ai_hub import AiHubCompiler

            return AiHubCompiler(target=target, ledger=layout.ledger)
        case _:
            assert_never(target)
