"""The sources of a run (recipe, bundle, interrupted run), and functions that submit runs to a farm and fetch the results."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quadbench import pipeline
from quadbench.artifacts import Bundle, StoredBundle
from quadbench.cli.console import RunConsole, print_answer, print_error
from quadbench.cli.device_options import listed_devices, run_options_from
from quadbench.cli.options import Options, next_command
from quadbench.cli.result import print_result
from quadbench.devices.addresses import Address
from quadbench.errors import FarmWaitInterrupted, UnknownNameError, UserError
from quadbench.observer import Observer
from quadbench.pipeline import RunOptions
from quadbench.quad.bundle_search import bundle_folder, fitting_bundle
from quadbench.quad.inputs import read_recipe
from quadbench.recipe import Recipe, RunSettings
from quadbench.recipe.recipe import recipe_file
from quadbench.report.view import report_view
from quadbench.results.engine import DATABASE_VARIABLE, source_name
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.results.stored_runs import is_run
from quadbench.spec.variables import set_variable

if TYPE_CHECKING:
    from quadbench.dispatch.submission import Farm, Request
    from quadbench.pipeline import RunOutcome


@dataclass(frozen=True, kw_only=True)
class RecipeSource:
    """A recipe as the source of a run, with the path of its YAML file."""

    recipe: Recipe
    file: Path

    @property
    def recipe_name(self) -> str:
        return self.recipe.name

    @property
    def tasks(self) -> list[str]:
        return [task.name for task in self.recipe.tasks]

    def run(self, chosen: Sequence[Address], options: RunOptions, *, layout: Layout, observer: Observer) -> pipeline.RunOutcome:
        return pipeline.run(self.recipe, chosen, options=options, layout=layout, observer=observer)

    def submit(self, request: "Request", farm: "Farm", *, layout: Layout, observer: Observer) -> str:
        from quadbench.dispatch.submission import submit

        return submit(self.recipe, request, farm, layout=layout, observer=observer)


@dataclass(frozen=True, kw_only=True)
class BundleSource:
    """A bundle as the source of a run. Its measurement settings come from the recipe that the user names, else from defaults."""

    bundle: StoredBundle
    terms: RunSettings

    @property
    def recipe_name(self) -> str:
        return self.bundle.artifact.recipe_name

    @property
    def tasks(self) -> list[str]:
        return [task.name for task in self.bundle.artifact.tasks]

    def run(self, chosen: Sequence[Address], options: RunOptions, *, layout: Layout, observer: Observer) -> pipeline.RunOutcome:
        return pipeline.run_bundle(self.bundle, self.terms, chosen, options=options, layout=layout, observer=observer)

    def submit(self, request: "Request", farm: "Farm", *, layout: Layout, observer: Observer) -> str:
        from quadbench.dispatch.submission import submit_bundle

        return submit_bundle(self.bundle, self.terms, request, farm)


@dataclass(frozen=True, kw_only=True)
class RunSource:
    """An interrupted run to resume. `run` resumes it on this machine's devices; `submit` to a farm raises UserError."""

    run_id: str
    bundle: Bundle

    @property
    def recipe_name(self) -> str:
        return self.bundle.recipe_name

    @property
    def tasks(self) -> list[str]:
        return [task.name for task in self.bundle.tasks]

    def run(self, chosen: Sequence[Address], options: RunOptions, *, layout: Layout, observer: Observer) -> pipeline.RunOutcome:
        return pipeline.resume(self.run_id, chosen, options=options, layout=layout, observer=observer)

    def submit(self, request: "Request", farm: "Farm", *, layout: Layout, observer: Observer) -> str:
        raise UserError("--resume and --farm exclude each other: a farm resumes by itself", hint="leave --farm or --resume out")


Source = RecipeSource | BundleSource | RunSource


def find_source(text: str, bundle: Path | None, layout: Layout) -> RecipeSource | BundleSource:
    """Return a BundleSource if `text` is a bundle folder or `bundle` is given. Else read recipe `text`; return a RecipeSource."""
    if folder := bundle_folder(text):
        if bundle:
            raise UserError(f"'{folder}' is a bundle, and --bundle names another", hint="give only one of them")
        return BundleSource(bundle=read_manifest(folder, Bundle), terms=RunSettings())
    try:
        recipe = read_recipe(text)
    except UnknownNameError as error:
        if not is_run(text, layout):
            raise
        again = f"to resume it: {layout.command('run', '--resume', text)}"
        raise UserError(f"'{text}' is a run; expected a recipe or a bundle", hint=again) from error
    if not bundle:
        return RecipeSource(recipe=recipe, file=recipe_file(text))
    return BundleSource(bundle=fitting_bundle(bundle, recipe, layout), terms=recipe.terms)


def add_farm(parser: argparse.ArgumentParser) -> None:
    """Add the option `--farm` to a command. Its value is the URL of the farm's database."""
    parser.add_argument(
        "--farm",
        type=_url,
        metavar="URL",
        help="run on the farm with this database and wait for the result; $QUADBENCH_STORE names the farm's store",
    )


def run_submit(options: Options) -> int:
    with RunConsole() as observer:
        run_id = submit_run(find_source(options.source, None, options.layout), options, observer)
    command = next_command(options, "farm", "fetch", run_id)
    text = f"run {run_id} is queued; to wait for its report: {command}"
    print_answer(options, {"run_id": run_id, "next": command}, text)
    return 0


def run_fetch(options: Options) -> int:
    with RunConsole() as observer:
        outcome = fetch_run(options.run_id, options.layout, observer)
    code = print_result(options, report_view(outcome.result, options.layout), outcome.report)
    for device, failure in outcome.failures.items():
        print_error(f"{device}: {failure}")
    return outcome.exit_code or code


def use_farm(url: str) -> None:
    """Use the farm's database at `url` for the rest of the command, as if $QUADBENCH_DATABASE named it."""
    set_variable(DATABASE_VARIABLE, url)


def run_on_farm(source: Source, options: Options, observer: Observer) -> "RunOutcome":
    """Run `source` on the farm, wait, and return the RunOutcome. On Ctrl-C, raise FarmWaitInterrupted; the farm run continues."""
    run_id = submit_run(source, options, observer)
    try:
        return fetch_run(run_id, options.layout, observer)
    except KeyboardInterrupt as interrupt:
        fetch, cancel = (farm_command(options, word, run_id) for word in ("fetch", "cancel"))
        raise FarmWaitInterrupted(f"the farm continues run {run_id}\nits report: {fetch}\nto cancel it: {cancel}") from interrupt


def farm_command(options: Options, *words: str) -> str:
    """Return a shell command `quadbench farm ...` that uses the farm of `--farm`. Omit the password of the farm's database."""
    farm = shlex.quote(source_name(options.farm))
    return f"{DATABASE_VARIABLE}={farm} {next_command(options, 'farm', *words)}"


def submit_run(source: Source, options: Options, observer: Observer) -> str:
    """Submit a run to the farm and return its id. $QUADBENCH_DATABASE names the farm's database, $QUADBENCH_STORE its store."""
    from quadbench.dispatch.submission import Request, open_farm

    words = tuple(listed_devices(options.devices))
    request = Request(words=words, conduct=run_options_from(options))
    with open_farm(options.layout) as farm:
        return source.submit(request, farm, layout=options.layout, observer=observer)


def fetch_run(run_id: str, layout: Layout, observer: Observer) -> "RunOutcome":
    """Wait until a farm run's jobs have ended. Fetch their results into the results folder, and return the RunOutcome."""
    from quadbench.dispatch.gathering import gathered, wait_for
    from quadbench.dispatch.submission import open_farm
    from quadbench.farm.job_status import answers

    with open_farm(layout) as farm:
        jobs = wait_for(run_id, farm, observer)
        observer.stage_step("fetch", run_id)
        return gathered(run_id, jobs, answers(farm.engine, jobs), farm.store, layout)


def _url(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not the URL of a database; leave --farm out to run here")
    return text
