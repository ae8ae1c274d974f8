"""Lint: a bundle's quantized graphs -> findings, the parts that a target would refuse or spoil, before anything is compiled."""

import logging
from collections.abc import Iterator, Mapping

from quadbench.artifacts import Bundle, Stored
from quadbench.errors import BuildError
from quadbench.lint.graph import LintedGraph, graph_of, read_graph
from quadbench.lint.rules import Finding, Severity, lint_graph

log = logging.getLogger(__name__)
Findings = Mapping[str, tuple[Finding, ...]]

__all__ = ["Finding", "Findings", "LintedGraph", "Severity", "check_bundle", "graph_of", "lint_bundle", "lint_graph", "messages"]


def lint_bundle(bundle: Stored[Bundle], *, htp_arch: str | None) -> dict[str, tuple[Finding, ...]]:
    """Return the findings of every quantized graph, by its path.

    `htp_arch` is the architecture of the device's Qualcomm HTP, as `v79`, if it has one.

    Raises:
        MissingDependencyError: the package onnx is not installed.
        ArtifactError: a file holds no ONNX model.
    """
    paths = [graph.file.path for graph in bundle.artifact.graphs if graph.variant.is_quantized]
    return {path: lint_graph(read_graph(bundle.folder / path), htp_arch=htp_arch) for path in paths}


def check_bundle(bundle: Stored[Bundle], *, htp_arch: str | None) -> None:
    """Lint a bundle: log the warnings, and stop at errors.

    Raises:
        BuildError: there are errors; it names every rule that is broken, and where.
        MissingDependencyError, ArtifactError: as `lint_bundle`.
    """
    findings = lint_bundle(bundle, htp_arch=htp_arch)
    for message in messages(findings, Severity.WARNING):
        log.warning("lint: %s", message)
    errors = list(messages(findings, Severity.ERROR))
    if errors:
        chip = f" for Qualcomm HTP {htp_arch}" if htp_arch else ""
        raise BuildError("\n".join((f"the graphs are refused before they are compiled{chip}:", *errors)))


def messages(findings: Findings, severity: Severity) -> Iterator[str]:
    """Yield one line for each rule that is broken: its first finding, and the number of those like it."""
    by_rule: dict[str, list[tuple[str, Finding]]] = {}
    for path, of_graph in findings.items():
        for finding in of_graph:
            if finding.severity is severity:
                by_rule.setdefault(finding.rule, []).append((path, finding))
    for rule, places in by_rule.items():
        path, first = places[0]
        graphs = len({path for path, _ in places})
        more = f" (and {len(places) - 1} more, in {graphs} graph{'s' * (graphs > 1)})" if len(places) > 1 else ""
        yield f"{path}: {rule}: {first.subject}{more}: found {first.found}; expected {first.expected}. Hint: {first.hint}"
