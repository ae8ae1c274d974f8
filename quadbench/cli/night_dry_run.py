"""Night dry run: the plan of a night -> what it would measure beside what, on which devices, and which cases it could not."""

from quadbench.cli.console import print_error, print_json, print_note, print_text, stdout_console
from quadbench.cli.text_tables import print_text_table
from quadbench.nightly.night_plan import Plan, PlannedCase
from quadbench.nightly.night_report import ERROR
from quadbench.report.figure_table import TextTable
from quadbench.report.units import plural

_SCHEMA_VERSION = 1


def print_plan(night_id: str, plan: Plan, *, as_json: bool) -> int:
    """Print what a night would measure; return the exit code, that of an error where a case could not be."""
    if as_json:
        cases = [_as_json(case) for case in plan.cases]
        print_json({"schema_version": _SCHEMA_VERSION, "night": night_id, "cases": cases, "faults": plan.faults})
    else:
        print_text_table(stdout_console(), _table(night_id, plan))
        print_text(f"{night_id} would measure {plural(len(plan.cases), 'case')} in {plural(plan.blocks, 'block')} each")
    print_faults(plan)
    return ERROR if plan.faults else 0


def print_faults(plan: Plan) -> None:
    """Say on stderr which cases, or tasks of theirs, are not measured, and why."""
    for case in plan.cases:
        if case.left_out:
            print_note(f"case '{case.name}': {case.left_out}")
    for name, why in plan.faults.items():
        print_error(f"case '{name}' cannot be measured: {why}")


def _table(night_id: str, plan: Plan) -> TextTable:
    return TextTable(
        title=night_id,
        columns=("Case", "Runs", "Beside", "Devices", "Owner"),
        numeric=(False,) * 5,
        rows=tuple(
            (case.name, case.chosen.name, case.yardstick.name, ", ".join(case.words), case.owner or "–") for case in plan.cases
        ),
    )


def _as_json(case: PlannedCase) -> dict[str, object]:
    told = {"name": case.name, "source": case.chosen.source, "changes": case.chosen.changes, "yardstick": case.yardstick.source}
    more = {"devices": case.words, "owner": case.owner, "quality": case.quality, "limits": case.limits.model_dump()}
    return {**told, "variant": case.chosen.variant, "tasks": case.chosen.tasks, "left_out": case.left_out, **more}
