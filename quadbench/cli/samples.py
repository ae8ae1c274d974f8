"""The command `samples`: export all measured values of stored runs as CSV."""

from pathlib import Path

import quadbench
from quadbench.cli.console import print_answer
from quadbench.cli.options import Options, Subparsers, add_command, counted
from quadbench.report.samples import write_samples


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "samples", run)
    parser.add_argument("run_ids", nargs="*", metavar="RUN", help="the runs (default: the latest finished run)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the CSV file to write")


def run(options: Options) -> int:
    table = quadbench.load(*options.run_ids, results=options.layout.root)
    write_samples(table, options.output)
    text = f"{counted(len(table), 'sample')}: {options.output}"
    print_answer(options, {"samples": len(table), "file": str(options.output)}, text)
    return 0
