"""Run: a recipe or a bundle, and devices -> records, a report, and its figures on the terminal; or what a run would be."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from quadbench import pipeline
from quadbench.artifacts import MIB, Bundle
from quadbench.cli.addresses import add_devices, chosen_devices
from quadbench.cli.console import RunConsole, print_error, print_json, print_text
from quadbench.cli.options import add_command
from quadbench.cli.result import add_full, print_result
from quadbench.errors import UserError
from quadbench.quad.chosen import bundle_folder, fitting_bundle
from quadbench.recipe import Recipe, Terms, load_recipe
from quadbench.results.manifest import read_manifest
from quadbench.rollout.forecast import Forecast, forecast

_SCHEMA_VERSION = 1  # of the JSON of a dry run


def add(commands: Any) -> None:
    """Add `quadbench run` to the commands."""
    parser = add_command(commands, "run", run)
    parser.add_argument("source", metavar="RECIPE_OR_BUNDLE", help="a YAML file, a recipe's name, or a bundle's folder")
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="run this bundle of the recipe, as one with an admitted adapter"
    )
    add_devices(parser)
    add_full(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be built, pushed and run on each device, and do nothing of it"
    )


def run(options: argparse.Namespace) -> int:
    chosen, folder = chosen_devices(options.devices, options.serial), bundle_folder(options.source)
    if folder and options.bundle:
        raise UserError(f"'{folder}' is a bundle, and --bundle names another", hint="give one of them")
    recipe = None if folder else load_recipe(options.source)
    if options.dry_run:
        return _print_forecasts(options, _forecasts(options, recipe, chosen))
    outcome = _outcome(options, recipe, folder or options.bundle, chosen)
    print_result(options, outcome.result, outcome.report)
    for address, failure in outcome.failures.items():
        print_error(f"{address} was left out: {failure}")
    return outcome.exit_code


def _forecasts(options: argparse.Namespace, recipe: Recipe | None, chosen: Sequence[str]) -> Sequence[Forecast]:
    if recipe is None or options.bundle:
        raise UserError("a dry run is of a recipe and builds nothing; a bundle is built already", hint="leave --dry-run out")
    return forecast(recipe, chosen, layout=options.layout)


def _outcome(options: argparse.Namespace, recipe: Recipe | None, folder: Path | None, chosen: Sequence[str]) -> pipeline.Outcome:
    """Run a recipe, or the bundle in a folder: as its recipe says, or without one by the defaults."""
    layout, terms, bundle = options.layout, recipe.terms if recipe else Terms(), None
    if folder:
        bundle = fitting_bundle(folder, recipe, layout) if recipe else read_manifest(folder, Bundle)
    with RunConsole(Console(stderr=True)) as observer:
        if bundle:
            return pipeline.run_bundle(bundle, terms, chosen, layout=layout, observer=observer)
        assert recipe is not None
        return pipeline.run(recipe, chosen, layout=layout, observer=observer)


def _print_forecasts(options: argparse.Namespace, forecasts: Sequence[Forecast]) -> int:
    if options.json:
        print_json({"schema_version": _SCHEMA_VERSION, "devices": [asdict(one) for one in forecasts]})
    else:
        print_text("\n\n".join("\n".join(_lines(one)) for one in forecasts))
    return 0


def _lines(one: Forecast) -> list[str]:
    pushed = {what: size_bytes for what, size_bytes in one.push_bytes.items() if size_bytes}
    sizes = [f"  {what.ljust(18)} {size_bytes / MIB:8.1f} MB" for what, size_bytes in pushed.items()]
    there = f"bundle {one.bundle[:12]}" if one.bundle else "no bundle yet"
    launches = [f"run: {one.launches} launches, {one.images} images"] if one.launches else []
    return [
        f"{one.address}: {one.title}, {one.abi}, {one.target}; {there}",
        *(f"build: {what}" for what in one.to_build),
        f"push: {sum(pushed.values()) / MIB:.1f} MB{' and what is built' if one.to_build else ''}, less what is there already",
        *sizes,
        *launches,
        *(f"missing: {what}" for what in one.missing),
    ]
