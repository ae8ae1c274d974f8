"""Sources: words of the command line -> what is run, a recipe, a bundle or a run that goes on; here, or by a farm."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quadbench import pipeline
from quadbench.artifacts import Bundle, Stored
from quadbench.errors import UnknownNameError, UserError
from quadbench.observer import Observer
from quadbench.pipeline import Conduct
from quadbench.quad.chosen import bundle_folder, fitting_bundle
from quadbench.quad.inputs import read_recipe
from quadbench.recipe import Recipe, Terms, recipe_file
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.spec import is_file

if TYPE_CHECKING:
    from quadbench.dispatch.submission import Farm, Request


@dataclass(frozen=True, kw_only=True)
class OfRecipe:
    """A recipe to be run, and its file."""

    recipe: Recipe
    file: Path

    @property
    def recipe_name(self) -> str:
        return self.recipe.name

    @property
    def tasks(self) -> list[str]:
        return [task.name for task in self.recipe.tasks]

    def run(self, chosen: Sequence[str], conduct: Conduct, *, layout: Layout, observer: Observer) -> pipeline.Outcome:
        return pipeline.run(self.recipe, chosen, conduct=conduct, layout=layout, observer=observer)

    def submit(self, request: "Request", farm: "Farm", *, layout: Layout, observer: Observer) -> str:
        from quadbench.dispatch.submission import submit

        return submit(self.recipe, request, farm, layout=layout, observer=observer)


@dataclass(frozen=True, kw_only=True)
class OfBundle:
    """A bundle to be run, as its recipe says or by the defaults."""

    bundle: Stored[Bundle]
    terms: Terms

    @property
    def recipe_name(self) -> str:
        return self.bundle.artifact.recipe_name

    @property
    def tasks(self) -> list[str]:
        return [task.name for task in self.bundle.artifact.tasks]

    def run(self, chosen: Sequence[str], conduct: Conduct, *, layout: Layout, observer: Observer) -> pipeline.Outcome:
        return pipeline.run_bundle(self.bundle, self.terms, chosen, conduct=conduct, layout=layout, observer=observer)

    def submit(self, request: "Request", farm: "Farm", *, layout: Layout, observer: Observer) -> str:
        from quadbench.dispatch.submission import submit_bundle

        return submit_bundle(self.bundle, self.terms, request, farm)


@dataclass(frozen=True, kw_only=True)
class OfRun:
    """A run that goes on."""

    run_id: str
    bundle: Bundle

    @property
    def recipe_name(self) -> str:
        return self.bundle.recipe_name

    @property
    def tasks(self) -> list[str]:
        return [task.name for task in self.bundle.tasks]

    def run(self, chosen: Sequence[str], conduct: Conduct, *, layout: Layout, observer: Observer) -> pipeline.Outcome:
        return pipeline.resume(self.run_id, chosen, conduct=conduct, layout=layout, observer=observer)

    def submit(self, request: "Request", farm: "Farm", *, layout: Layout, observer: Observer) -> str:
        raise UserError("--resume goes on where a run began, and a farm goes on by itself", hint="leave --farm or --resume out")


Source = OfRecipe | OfBundle | OfRun


def named_source(text: str, bundle: Path | None, layout: Layout) -> OfRecipe | OfBundle:
    """Return what a word means: the bundle in a folder, or a recipe, with a bundle of it where one is named.

    Raises:
        UserError: two bundles or a run are named, or the recipe builds another base than the bundle has.
        QuadbenchError: there is no such recipe or bundle, or it is wrong.
    """
    if folder := bundle_folder(text):
        if bundle:
            raise UserError(f"'{folder}' is a bundle, and --bundle names another", hint="give one of them")
        return OfBundle(bundle=read_manifest(folder, Bundle), terms=Terms())
    try:
        recipe = read_recipe(text)
    except UnknownNameError as error:
        if not _is_run(text, layout):
            raise
        again = f"to go on with it: {layout.command('run', '--resume', text)}"
        raise UserError(f"'{text}' is a run; expected a recipe or a bundle", hint=again) from error
    if not bundle:
        return OfRecipe(recipe=recipe, file=recipe_file(text))
    return OfBundle(bundle=fitting_bundle(bundle, recipe, layout), terms=recipe.terms)


def _is_run(text: str, layout: Layout) -> bool:
    try:
        return is_file(layout.run_file(text))
    except ValueError:
        return False
