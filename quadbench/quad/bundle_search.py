"""Bundle search: finding a bundle, by recipe or folder, to run it or to add an adapter. This module does not import torch."""

from collections.abc import Sequence
from pathlib import Path

from quadbench.artifacts import Bundle, StoredBundle
from quadbench.errors import UserError
from quadbench.quad.cache import find_bundle
from quadbench.quad.inputs import check_devices
from quadbench.recipe import Recipe, recipe_digest
from quadbench.results.bundles import load_admitted
from quadbench.results.layout import Layout
from quadbench.results.manifest import MANIFEST, read_manifest
from quadbench.results.stored_runs import load_run, run_ids
from quadbench.spec import is_file


def latest_bundle(layout: Layout, recipe: Recipe | None = None) -> StoredBundle:
    """Return the bundle to which an adapter is added by default: the last that gained an adapter, if no run is newer. Otherwise
    return the latest run's bundle.

    With a recipe, that bundle must have the recipe's base; otherwise the recipe's own bundle is returned.

    Raises:
        UserError: the recipe has no bundle, or several.
        ArtifactError: there is no run yet, or stored data is damaged.
    """
    if recipe is None:
        return _only(_latest(layout), "the latest run")
    own = _bundles_of(recipe, layout)
    bases = [bundle.artifact.base for bundle in own]
    latest = _latest(layout) if run_ids(layout, 1) or layout.admitted.exists() else []
    return _only([bundle for bundle in latest if bundle.artifact.base in bases] or own, f"recipe '{recipe.name}'")


def fitting_bundle(folder: Path, recipe: Recipe, layout: Layout) -> StoredBundle:
    """Return the bundle in `folder`. Raise UserError unless its shared U-Net and encodings equal those of a bundle built from
    `recipe`. Raise ArtifactError if the bundle in `folder` is damaged.
    """
    bundle = read_manifest(folder, Bundle)
    if all(bundle.artifact.base != own.artifact.base for own in _bundles_of(recipe, layout)):
        raise UserError(
            f"bundle '{folder}' has base {bundle.artifact.base.graph[:12]}; recipe '{recipe.name}' builds another base",
            hint="give the recipe that built the bundle",
        )
    return bundle


def bundle_folder(text: str) -> Path | None:
    """Return the path if the text names a bundle's folder; None if it names something else, such as a recipe."""
    return Path(text) if is_file(Path(text) / MANIFEST) else None


def _latest(layout: Layout) -> Sequence[StoredBundle]:
    admitted = load_admitted(layout)
    return [admitted] if admitted else load_run(layout).bundles


def _bundles_of(recipe: Recipe, layout: Layout) -> list[StoredBundle]:
    """Return a list of a recipe's stored bundles, for default and device settings. Raise UserError if no bundle is stored."""
    check_devices(recipe)
    unlike = {recipe_digest(each): each for each in (recipe.for_device(profile) for profile in (None, *recipe.devices))}
    bundles = [bundle for each in unlike.values() if (bundle := find_bundle(each, layout))]
    if not bundles:
        raise UserError(
            f"recipe '{recipe.name}' has no bundle in '{layout.root}' yet", hint="run the recipe first to build its bundle"
        )
    return bundles


def _only(bundles: Sequence[StoredBundle], whose: str) -> StoredBundle:
    if len(bundles) > 1:
        folders = ", ".join(str(bundle.folder) for bundle in bundles)
        hint = "choose one with --bundle FOLDER"
        raise UserError(f"{whose} has {len(bundles)} bundles; expected one to add the adapter to: {folders}", hint=hint)
    return bundles[0]
