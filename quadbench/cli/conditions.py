"""Conditions: `--fail-if` and `--baseline` on the command line -> conditions on a run's figures, and what it is held against."""

import argparse
from collections.abc import Iterable, Sequence

from quadbench.artifacts import RunResult
from quadbench.cli.console import print_note
from quadbench.report.condition import Criterion, read_condition
from quadbench.report.launches import devices_of
from quadbench.study.earlier import LaterRun, earlier_run


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
        "--baseline",
        metavar="RUN",
        help="an earlier run of the same tasks and devices, or `latest`, the one before: say what got worse since",
    )


def baseline_of(options: argparse.Namespace, wanted: LaterRun) -> RunResult | None:
    """Return the run that one is held against, before anything is done; None: none is named, or `latest` and there is none yet.

    Raises:
        QuadbenchError: as `earlier_run`.
    """
    baseline = earlier_run(options.layout, options.baseline, wanted) if options.baseline else None
    if options.baseline and not baseline:
        where = f" on {', '.join(wanted.addresses)}" if wanted.addresses else ""
        rest = "conditions that name a baseline count as met" if getattr(options, "fail_if", None) else "the next run has one"
        print_note(f"no earlier whole run of {wanted.recipe_name}{where} is in '{options.layout.root}'; {rest}")
    return baseline


def wanted_as(result: RunResult) -> LaterRun:
    """Return a stored run as it is held against an earlier one."""
    return LaterRun(
        recipe_name=result.bundle.recipe_name,
        tasks=[task.name for task in result.bundle.tasks],
        addresses=[device.address for device in devices_of(result)],
        swept=result.swept,
        run_id=result.run_id,
    )
