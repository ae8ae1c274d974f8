"""Conditions: `--fail-if` on the command line -> the conditions that a run's figures must not meet."""

import argparse
from collections.abc import Iterable, Sequence

from quadbench.report.condition import Criterion, read_condition


def add_fail_if(parser: argparse.ArgumentParser) -> None:
    """Add `--fail-if`, which `conditions_of` reads."""
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="EXPR",
        help="end with exit code 8 where this holds, as 'shared.end_to_end_ms.p50 > 200' (docs/commands.md); may be given often",
    )


def conditions_of(options: argparse.Namespace, tasks: Iterable[str]) -> Sequence[Criterion]:
    """Read the conditions on a run of these tasks, before anything is done.

    Raises:
        UserError: one is no expression, or names what no run has.
    """
    names = tuple(tasks)
    return [read_condition(text, names) for text in options.fail_if]
