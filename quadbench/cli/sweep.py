"""The command `sweep`: run a recipe once per combination of the key values in `--over`. Compare the runs in tables."""

from quadbench.cli.console import RUN_STAGES, RunConsole, print_error
from quadbench.cli.device_options import add_devices, add_run_options, addresses_of, run_options_from
from quadbench.cli.options import Options, Subparsers, add_command, add_full, add_recipe
from quadbench.cli.result import print_study
from quadbench.errors import HarnessError, NoTimeError
from quadbench.study.run_sweep import parse_axis, sweep


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "sweep", run)
    add_recipe(parser)
    parser.add_argument(
        "--over",
        required=True,
        action="append",
        metavar="KEY=V1,V2",
        help="a recipe's key and its values: precision.activations.int8=0,50,100 (percent), tasks.restyle.sampler.steps=4,8; "
        "several --over options make a grid",
    )
    add_devices(parser)
    add_full(parser)
    add_run_options(parser, later="the sweep names the settings that it did not measure")


def run(options: Options) -> int:
    axes, chosen = [parse_axis(axis) for axis in options.over], addresses_of(options.devices, options.layout)
    with RunConsole(stages=RUN_STAGES) as observer:
        swept = sweep(options.recipe, axes, chosen, run_options_from(options), layout=options.layout, observer=observer)
    print_study(options, swept.sweep)
    for setting, failure in swept.failures.items():
        print_error(f"{setting} was left out: {failure}")
    failed = next((failure for failure in swept.failures.values() if not isinstance(failure, NoTimeError)), None)
    if failed:
        return failed.exit_code
    return HarnessError.exit_code if any(not point.figures for point in swept.sweep.points) else 0
