"""Findings: breaches of rules -> one line for each rule that is broken."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from quadbench.lint.graph import LintedGraph


class Severity(StrEnum):
    """An error stops the compilation, a warning is logged."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A breach of a rule by a tensor or node, its `subject`."""

    rule: str
    severity: Severity = Severity.ERROR
    subject: str
    found: str
    expected: str
    hint: str


Rule = Callable[[LintedGraph], Iterator[Finding]]
Findings = Mapping[str, tuple[Finding, ...]]  # by the graph's path


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
