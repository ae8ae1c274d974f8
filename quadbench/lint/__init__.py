"""Lint: checks of a bundle's quantized graphs before compilation, for nodes that a chip would refuse or compute wrongly.

linted_graph.py  an ONNX model as plain data: tensors, nodes, constants, dtypes
rules.py         the rules for all targets, Qualcomm's HTP and LiteRT; findings as messages
"""

import logging

from quadbench.artifacts import StoredBundle
from quadbench.errors import BuildError, MissingDependencyError
from quadbench.lint.linted_graph import LintedGraph, read_graph
from quadbench.lint.rules import RULES, Finding, Severity, htp_rules, litert_rules, messages
from quadbench.target.targets import LiteRtTarget, Target

log = logging.getLogger(__name__)

__all__ = ["Finding", "LintedGraph", "Severity", "check_bundle", "lint_bundle", "lint_graph", "messages"]


def lint_graph(graph: LintedGraph, *, htp_arch: str | None, target: Target | None = None) -> tuple[Finding, ...]:
    """Return all findings of the lint rules in one graph, in the order of the rules.

    `htp_arch` is the Qualcomm HTP of the device's chip, such as `v79`, or None; `target` is the target of the graph.
    """
    of_chip = htp_rules(htp_arch) if htp_arch else ()
    of_target = litert_rules(target.soc) if isinstance(target, LiteRtTarget) else ()
    return tuple(finding for rule in (*RULES, *of_chip, *of_target) for finding in rule(graph))


def lint_bundle(bundle: StoredBundle, *, htp_arch: str | None, target: Target | None = None) -> dict[str, tuple[Finding, ...]]:
    """Lint a bundle's quantized graphs. Return a dict from graph path to findings. `htp_arch` is the HTP version, such as `v79`.

    Raises:
        MissingDependencyError: the package onnx is not installed.
        ArtifactError: a file is not an ONNX model.
    """
    paths = dict.fromkeys(graph.file.path for graph in bundle.artifact.graphs if graph.variant.is_quantized)
    return {path: lint_graph(read_graph(bundle.folder / path), htp_arch=htp_arch, target=target) for path in paths}


def check_bundle(bundle: StoredBundle, *, htp_arch: str | None, target: Target | None = None) -> None:
    """Lint a bundle's graphs: log warnings, raise BuildError for errors. Without the onnx package, only log that lint is skipped.

    Raises:
        BuildError: there are errors; the message has every broken rule and its place.
        ArtifactError: a file is not an ONNX model.
    """
    try:
        findings = lint_bundle(bundle, htp_arch=htp_arch, target=target)
    except MissingDependencyError as error:
        log.warning("graphs are compiled without lint checks: %s", error)
        return
    for message in messages(findings, Severity.WARNING):
        log.warning("lint: %s", message)
    errors = list(messages(findings, Severity.ERROR))
    if errors:
        chip = f" for Qualcomm HTP {htp_arch}" if htp_arch else ""
        raise BuildError("\n".join((f"the graphs are not compiled, because they break lint rules{chip}:", *errors)))
