"""The command `runs`: list the latest runs, sweeps and comparisons of a results folder, one line each."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.text import Text

from quadbench.artifacts.safe_text import one_line
from quadbench.cli.console import READ_WIDTH, empty_table, print_json, print_rows, print_text, stdout_console
from quadbench.cli.options import Options, Subparsers, add_command, next_command, whole_number
from quadbench.errors import QuadbenchError
from quadbench.report.run_line import RunLine, RunList, RunStatus, run_line
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import load_run, run_ids
from quadbench.study.stored_studies import study_lines

_SHOWN = 20
_WITH_BEGIN = 100  # terminal width for the column; run ids begin with the start time anyway
_COLOURS = {
    RunStatus.OK: "green",
    RunStatus.UNDER_WAY: "blue",
    RunStatus.FAILED: "red",
    RunStatus.CUT_SHORT: "yellow",
    RunStatus.DAMAGED: "red",
}


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "runs", run)
    parser.add_argument(
        "--limit",
        type=whole_number(1, 10_000),
        default=_SHOWN,
        metavar="N",
        help="how many runs to list, latest first (default: %(default)s)",
    )


def run(options: Options) -> int:
    lines = [_line(options.layout, run_id) for run_id in run_ids(options.layout, options.limit)]
    studies = study_lines(options.layout, options.limit)
    if options.json:
        print_json(RunList(runs=tuple(lines), studies=tuple(studies)))
        return 0
    if studies:
        rows = [(one.study_id, one.what or f"{one.kind}, {RunStatus.DAMAGED}", ", ".join(one.devices) or "–") for one in studies]
        print_rows(("Sweep or comparison", "Of", "Devices"), rows, whole=("Sweep or comparison",))
        for study in studies:
            if study.reason:
                print_text(f"{study.study_id}: {one_line(study.reason)}")
    if lines:
        _print_lines(options, lines)
    if not studies and not lines:
        print_text(f"no run yet; to start one: {next_command(options, 'run', 'quickstart')}")
    return 0


def _line(layout: Layout, run_id: str) -> RunLine:
    try:
        return run_line(load_run(layout, run_id))
    except QuadbenchError as error:
        return RunLine(run_id=run_id, status=RunStatus.DAMAGED, reason=error.message)


def _print_lines(options: Options, lines: Sequence[RunLine]) -> None:
    """Print a table of runs, then what is wrong with failed or damaged runs. Last, print the `show` command for the first run."""
    console = stdout_console()
    begins = ("Began, UTC",) if console.width >= _WITH_BEGIN else ()
    table = empty_table("Run", *begins, "Recipe", "Devices", "Status", "Image", whole=("Run", *begins, "Status"))
    for line in lines:
        began = (f"{line.started_at:%Y-%m-%d %H:%M}" if line.started_at else "–",) if begins else ()
        ahead, status = (one_line(line.run_id), *began), Text(line.status, style=_COLOURS[line.status])
        for recipe, device, image in _cells(line, has_room=console.width > READ_WIDTH):
            table.add_row(*ahead, recipe, device, status, image)
            ahead, status = ("",) * len(ahead), Text()
    console.print(table)
    for line in lines:
        if line.reason:
            print_text(f"{line.run_id}: {one_line(line.reason)}")
    print_text(f"next: {next_command(options, 'show', lines[0].run_id)}")


def _cells(line: RunLine, *, has_room: bool) -> Iterator[tuple[str, str, str]]:
    """Yield a run's table rows: (recipe or `key=value`, device, image time or PSNR). Unless `has_room`, break times at commas."""
    recipe = (line.recipe or "–", *(f"{key.rpartition('.')[2]}={value}" for key, value in line.swept.items()))
    devices = line.devices or ("–",)
    for words in zip_longest(recipe, devices, (line.figures.get(address, "–") for address in devices), fillvalue=""):
        name, address, image = map(one_line, words)
        yield name, address, image if has_room else image.replace(", ", ",\n")
