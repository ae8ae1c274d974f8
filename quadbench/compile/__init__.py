"""Compile: Bundle + target -> CompiledBundle, or the one that the same inputs made before."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never, runtime_checkable

from quadbench.artifacts import Bundle, CompiledBundle, Graph
from quadbench.compile.product import Product
from quadbench.device_profile import AiHubTarget, OnnxRuntimeTarget, QnnTarget, Target
from quadbench.errors import MissingDependencyError
from quadbench.lint import check_bundle
from quadbench.manifest import digest_of, publish, read_manifest
from quadbench.toolchain_target import ToolchainTarget

log = logging.getLogger(__name__)
Notify = Callable[[str], None]


class Compiler(Protocol):
    """Makes one graph of a bundle into what the target's runtime loads."""

    def versions(self) -> dict[str, str]:
        """What the product depends on beside the graph."""
        ...

    def compile(self, graph: Graph, source: Path, folder: Path) -> Graph:
        """Write the product below `folder`, at the graph's own path but for the suffix, and describe it. Raises: BuildError."""
        ...


@runtime_checkable
class BundleCompiler(Protocol):
    """Makes all graphs of a bundle at once, where they wait in a queue or share what they are made of."""

    def versions(self) -> dict[str, str]:
        """What the product depends on beside the graphs."""
        ...

    def compile_all(self, graphs: Sequence[Graph], source: Path, folder: Path, notify: Notify) -> Product:
        """Write the products of the graphs below `source` into `folder` and describe them. Raises: BuildError."""
        ...


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A compiled bundle, its folder, and whether it was there already."""

    compiled: CompiledBundle
    folder: Path
    is_reused: bool


def compile_bundle(
    bundle: Bundle,
    bundle_folder: Path,
    target: Target,
    key: str,
    root: Path,
    *,
    htp_arch: str | None = None,
    notify: Notify = lambda _graph: None,
) -> Compiled:
    """Compile every quantized graph for a target (`key` is its name in one word) into a folder below `root`.

    The digest is that of the graphs, the target and the compiler: another adapter, table or input compiles nothing again.
    The graphs are linted first, those of a compiled bundle that is there too: `htp_arch`, that of the chip's Qualcomm HTP if
    it has one, is no part of the digest.

    Raises:
        BuildError: the target cannot be compiled for here, the linter found errors, or a graph was refused.
        ArtifactError: the product is there but damaged.
    """
    compiler = _compiler(target, root)
    _lint(bundle, bundle_folder, htp_arch)
    graphs, sources = _quantized(bundle), _sources(bundle)
    digest = digest_of({"graphs": sources, "target": key, "versions": compiler.versions()})
    folder = root / digest[:16]
    if folder.is_dir():
        return Compiled(compiled=read_manifest(folder, CompiledBundle), folder=folder, is_reused=True)

    def make(temporary: Path) -> CompiledBundle:
        product = _compile(compiler, graphs, bundle_folder, temporary, notify)
        return CompiledBundle(
            digest=digest,
            parent_digest=graphs_digest(bundle),
            target=key,
            tool_versions=compiler.versions() | product.versions,
            graphs=product.graphs,
            caveats=product.caveats,
            costs=product.costs,
        )

    return Compiled(compiled=publish(folder, make), folder=folder, is_reused=False)


def graphs_digest(bundle: Bundle) -> str:
    """Of what is compiled: the `parent_digest` of every CompiledBundle that is made of it."""
    return digest_of(_sources(bundle))


def _quantized(bundle: Bundle) -> tuple[Graph, ...]:
    return tuple(graph for graph in bundle.graphs if graph.variant.is_quantized)


def _sources(bundle: Bundle) -> dict[str, str]:
    return {graph.file.path: graph.file.sha256 for graph in _quantized(bundle)}


def _compile(compiler: Compiler | BundleCompiler, graphs: Sequence[Graph], source: Path, folder: Path, notify: Notify) -> Product:
    if isinstance(compiler, BundleCompiler):
        return compiler.compile_all(graphs, source, folder, notify)
    made = []
    for graph in graphs:
        notify(graph.file.path)
        made.append(compiler.compile(graph, source / graph.file.path, folder))
    return Product(graphs=tuple(made))


def _lint(bundle: Bundle, folder: Path, htp_arch: str | None) -> None:
    """The core installs without onnx and compiles what was built, and linted, elsewhere: that is worth a warning."""
    try:
        check_bundle(bundle, folder, htp_arch=htp_arch)
    except MissingDependencyError as error:
        log.warning("the graphs are compiled without being linted: %s", error)


def _compiler(target: Target, root: Path) -> Compiler | BundleCompiler:
    match target:
        case OnnxRuntimeTarget():
            from quadbench.compile.onnxruntime import OnnxRuntimeCompiler

            return OnnxRuntimeCompiler(execution_provider=target.execution_provider)
        case QnnTarget():
            from quadbench.compile.qnn import QnnCompiler

            return QnnCompiler(htp_arch=target.htp_arch, soc_model=target.soc_model)
        case ToolchainTarget():
            from quadbench.compile.toolchain import ToolchainCompiler

            return ToolchainCompiler(target=target)
        case AiHubTarget():
            from quadbench.ai_hub import LEDGER
            from quadbench.compile.ai_hub import AiHubCompiler

            return AiHubCompiler(target=target, ledger=root.parent / LEDGER)
        case _:
            assert_never(target)
