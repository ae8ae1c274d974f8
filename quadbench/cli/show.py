"""The command `show`: print again the measured values of a stored run, sweep or comparison. It writes no file."""

from quadbench.cli.options import Options, Subparsers, add_command, add_full
from quadbench.cli.result import print_result, print_study, study_of
from quadbench.report.view import report_view
from quadbench.results.stored_runs import COMPARISON, RUN, SWEEP, find_run


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "show", run)
    parser.add_argument("run_id", nargs="?", metavar="ID", help="the run, sweep or comparison (default: the latest finished run)")
    add_full(parser)


def run(options: Options) -> int:
    if study := study_of(options):
        print_study(options, study)
        return 0
    result = find_run(options.layout, options.run_id, RUN, SWEEP, COMPARISON)
    path = options.layout.report(result.run_id)
    print_result(options, report_view(result, options.layout), path if path.is_file() else None)
    return 0
