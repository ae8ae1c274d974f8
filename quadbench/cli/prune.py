"""The command `prune`: remove old runs, unused parts of builds, and files left over from builds and runs that were killed."""

from quadbench.cli.console import print_json, print_text
from quadbench.cli.options import Options, Subparsers, add_command, counted, duration_s
from quadbench.results.engine import database_of
from quadbench.results.maintenance import old_runs, remove_left_over, remove_run, remove_unused_parts
from quadbench.results.records import open_records


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "prune", run)
    parser.add_argument("--keep", type=duration_s, required=True, metavar="TIME", help="keep runs that ended within this: 90d")
    parser.add_argument("--dry-run", action="store_true", help="list what would be removed, without removing it")


def run(options: Options) -> int:
    old = old_runs(options.layout, options.keep)
    if not options.dry_run:
        remove_left_over(options.layout)
        remove_unused_parts(options.layout, options.keep)
    if old.removable and not options.dry_run:
        with open_records(database_of(options.layout)) as records:
            for run_id in old.removable:
                remove_run(records, options.layout, run_id)
    if options.json:
        kept = {run_id: str(path) for run_id, path in old.referred.items()}
        print_json({"removed": old.removable, "kept": kept, "under_way": old.under_way, "is_dry_run": options.dry_run})
        return 0
    for run_id in old.removable:
        print_text(f"{run_id} {'would be' if options.dry_run else 'is'} removed")
    for run_id, path in sorted(old.referred.items()):
        print_text(f"{run_id} stays: {path} refers to it")
    for run_id in old.under_way:
        print_text(f"{run_id} stays: it is still running")
    if not old.removable:
        count = len(old.referred.keys() | set(old.under_way))
        print_text(f"nothing to remove; {counted(count, 'old run')} {'stays' if count == 1 else 'stay'}")
    return 0
