"""The command `db`: copy all records and nightly results from one database to another."""

from rich.console import Console

from quadbench.artifacts.safe_text import one_line
from quadbench.cli.console import print_answer, print_error
from quadbench.cli.options import Options, Subparsers, add_action, add_group, counted
from quadbench.errors import ArtifactError
from quadbench.results.maintenance import copy_records


def add(commands: Subparsers) -> None:
    copy = add_action(add_group(commands, "db"), "copy", run_copy, "copy all records and nights from one database to another")
    for name in ("source", "target"):
        copy.add_argument(name, help="a SQLite file such as results/quadbench.sqlite, or postgresql://HOST/NAME")


def run_copy(options: Options) -> int:
    with Console(stderr=True, markup=False).status("") as status:
        copied = copy_records(options.source, options.target, notify=lambda run_id: status.update(f"run {one_line(run_id)}"))
    records = f"{counted(copied.stored, 'record')} copied, {copied.present} there already"
    print_answer(options, copied, f"{records}; {counted(copied.nights, 'night')} copied")
    for reason in copied.refused:
        print_error(reason)
    return ArtifactError.exit_code if copied.refused else 0
