"""Conditions: `--fail-if` and `--baseline` on the command line -> conditions on a run's figures, and what it is held against."""

import argparse
from collections.abc import Iterable, Sequence

from quadbench.artifacts import RunResult
from quadbench.errors import UserError
from quadbench.report.baseline import require_alike
from quadbench.report.condition import Criterion, read_condition
from quadbench.results.runs import load_run, run_ids


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
    return [read_condition(text, names, has_baseline=bool(options.baseline)) for text in options.fail_if]


def add_baseline(parser: argparse.ArgumentParser) -> None:
    """Add `--baseline`, which `baseline_of` reads."""
    parser.add_argument(
        "--baseline", metavar="RUN", help="an earlier run of the same tasks and devices: say what got worse since"
    )


def baseline_of(
    options: argparse.Namespace, tasks: Sequence[str], addresses: Sequence[str], run_id: str | None = None
) -> RunResult | None:
    """Return the run that one of these tasks on these devices is held against, before anything is done; None: none is named.

    Raises:
        UserError: it is the run itself, has other tasks, lacks one of the devices, or there are no runs.
        QuadbenchError: there is no such run, or it is damaged.
    """
    if options.baseline is None:
        return None
    if not run_ids(options.layout, 1):
        hint = "--results names the folder with the baseline, which a CI job keeps from one run to the next"
        raise UserError(f"'{options.layout.root}' holds no run that could be a baseline", hint=hint)
    baseline = load_run(options.layout, options.baseline)
    require_alike(baseline, tasks, addresses, run_id)
    return baseline
