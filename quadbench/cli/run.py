"""The command `run`: run a recipe or bundle on devices, or resume a run. Then write its report and print its metrics."""

from functools import partial
from pathlib import Path

from quadbench import pipeline
from quadbench.artifacts import MIB
from quadbench.cli.console import RUN_STAGES, RunConsole, print_answer, print_error
from quadbench.cli.device_options import add_devices, add_run_options, addresses_of, retry_when_free, run_options_from
from quadbench.cli.options import Options, Subparsers, add_command, add_full, refuse_given
from quadbench.cli.result import add_fail_if, conditions_of, print_result
from quadbench.cli.run_source import BundleSource, RecipeSource, RunSource, Source, add_farm, find_source, run_on_farm, use_farm
from quadbench.errors import UserError
from quadbench.report.view import report_view
from quadbench.rollout.forecast import Forecast, device_problems, forecast, forecast_of_bundle
from quadbench.spec.spec_model import refuse_in

_SCHEMA_VERSION = 1  # for the JSON of a dry run


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "run", run)
    parser.add_argument(
        "source", nargs="?", metavar="RECIPE_OR_BUNDLE", help="a YAML file, a recipe's name, or a bundle's folder"
    )
    parser.add_argument(
        "--resume", metavar="RUN", help="resume an interrupted run, on all of its devices or only on those of --devices"
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="run this bundle of the recipe, for example one with an admitted adapter"
    )
    add_devices(parser)
    add_full(parser)
    add_fail_if(parser)
    parser.add_argument("--wait", action="store_true", help="wait for a device that another process on this machine uses")
    add_run_options(parser)
    add_farm(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be built, pushed and run on each device, without doing it"
    )


def run(options: Options) -> int:
    if options.farm:
        refuse_given("a run on a farm", options, "wait", "dry_run", hint="leave the option or --farm out")
        use_farm(options.farm)
    if options.wait and options.keep_going:
        raise UserError("--wait and --keep-going exclude each other: wait for a device, or leave it out", hint="give one of them")
    source, run_options = _source(options), run_options_from(options)
    goes_on_there = options.resume and options.devices is None  # on all of its own devices
    is_told = not goes_on_there and not options.farm
    chosen = addresses_of(options.devices, options.layout) if is_told else ()
    if isinstance(source, RecipeSource):
        refuse_in(source.file, device_problems(source.recipe, chosen))
    conditions = conditions_of(options, source.tasks)
    if options.dry_run:
        match source:
            case RecipeSource(recipe=recipe):
                forecasts = forecast(recipe, chosen, layout=options.layout)
            case BundleSource(bundle=bundle, terms=terms):
                forecasts = forecast_of_bundle(bundle, terms, chosen, layout=options.layout)
            case RunSource():
                raise UserError("--resume continues a run unchanged, and does not take --dry-run", hint="leave --dry-run out")
        answer = {"schema_version": _SCHEMA_VERSION, "devices": forecasts}
        print_answer(options, answer, "\n\n".join("\n".join(_lines(one)) for one in forecasts))
        return 0
    with RunConsole(stages=RUN_STAGES) as observer:
        if options.farm:
            outcome = run_on_farm(source, options, observer)
        else:
            run_here = partial(source.run, chosen, run_options, layout=options.layout, observer=observer)
            outcome = retry_when_free(run_here, observer, waits=options.wait)
    code = print_result(options, report_view(outcome.result, options.layout), outcome.report, conditions)
    for address, failure in outcome.failures.items():
        print_error(f"{address} was left out: {failure}")
    return outcome.exit_code or code


def _source(options: Options) -> Source:
    """Return what the command line says to run: a recipe, a bundle or, with `--resume`, an interrupted run."""
    if options.resume:
        if options.source or options.bundle or options.dry_run:
            what = options.source or ("--bundle" if options.bundle else "--dry-run")
            raise UserError(f"--resume continues a run unchanged, and does not take {what}", hint=f"leave {what} out")
        return RunSource(run_id=options.resume, bundle=pipeline.resumable_bundle(options.resume, options.layout))
    if not options.source:
        raise UserError("no recipe or bundle was named", hint="name one, such as quickstart, or resume a run: --resume RUN")
    return find_source(options.source, options.bundle, options.layout)


def _lines(one: Forecast) -> list[str]:
    pushed = {what: size_bytes for what, size_bytes in one.push_bytes.items() if size_bytes}
    sizes = [f"  {what.ljust(18)} {size_bytes / MIB:8.1f} MB" for what, size_bytes in pushed.items()]
    adapters = ", ".join(f"{name} {size_bytes / MIB:.2f} MB" for name, size_bytes in one.adapter_bytes.items())
    push = [*([f"{sum(pushed.values()) / MIB:.1f} MB"] if pushed else []), *(["built files"] if one.to_build else [])]
    there = f"bundle {one.bundle[:12]}" if one.bundle else "no bundle yet"
    launches = [f"run: {one.launches} launches, {one.images} images"] if one.launches else []
    return [
        f"{one.address}: {one.title}, {one.abi}, {one.target}; {there}",
        *(f"build: {what}" for what in one.to_build),
        f"push: {' and '.join(push)}, except files that are there already",
        *sizes,
        *([f"adapters: {adapters}"] if adapters else []),
        *launches,
        *(f"missing: {what}" for what in one.missing),
    ]
