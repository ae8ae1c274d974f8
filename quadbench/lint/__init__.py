"""Lint: a bundle's quantized graphs -> findings, the parts that a target would refuse or spoil, before anything is compiled."""

import logging
from pathlib import Path

from quadbench.artifacts import Bundle, Stored
from quadbench.errors import BuildError, MissingDependencyError
from quadbench.lint.graph import LintedGraph, graph_of, read_graph
from quadbench.lint.rules import Finding, Findings, Severity, lint_graph, messages

log = logging.getLogger(__name__)

__all__ = ["Finding", "Findings", "LintedGraph", "Severity", "check_bundle", "graph_of", "lint_bundle", "lint_graph", "messages"]


def lint_bundle(bundle: Stored[Bundle], *, htp_arch: str | None) -> dict[str, tuple[Finding, ...]]:
    """Return the findings of every quantized graph, by its path.

    `htp_arch` is the architecture of the device's Qualcomm HTP, as `v79`, if it has one.

    Raises:
        MissingDependencyError: the package onnx is not installed.
        ArtifactError: a file holds no ONNX model.
    """
    paths = [graph.file.path for graph in bundle.artifact.graphs if graph.variant.is_quantized]
    return {path: _findings(bundle.folder / path, htp_arch) for path in paths}


def check_bundle(bundle: Stored[Bundle], *, htp_arch: str | None) -> None:
    """Lint a bundle before it is compiled: log the warnings, and stop at errors.

    Where onnx is not installed a warning says that nothing was linted: the graphs were linted where they were built.

    Raises:
        BuildError: there are errors; it names every rule that is broken, and where.
        ArtifactError: a file holds no ONNX model.
    """
    try:
        findings = lint_bundle(bundle, htp_arch=htp_arch)
    except MissingDependencyError as error:
        log.warning("the graphs are compiled without being linted: %s", error)
        return
    for message in messages(findings, Severity.WARNING):
        log.warning("lint: %s", message)
    errors = list(messages(findings, Severity.ERROR))
    if errors:
        chip = f" for Qualcomm HTP {htp_arch}" if htp_arch else ""
        raise BuildError("\n".join((f"the graphs are refused before they are compiled{chip}:", *errors)))


def _findings(path: Path, htp_arch: str | None) -> tuple[Finding, ...]:
    graph = read_graph(path)
    return lint_graph(graph, htp_arch=htp_arch)
