"""Building: recipes -> their bundles, built where they are not there yet, and compiled for a target."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from quadbench.artifacts import Bundle, CompiledBundle, Stored
from quadbench.artifacts.run_record import file_refs
from quadbench.compile.availability import require
from quadbench.errors import extra_needed
from quadbench.observer import Observer
from quadbench.quad.cache import cached
from quadbench.recipe import Recipe, recipe_digest
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents, read_manifest, temporary_folder
from quadbench.rollout import compile_for
from quadbench.target.known_targets import KnownTarget


def built(recipe: Recipe, *, layout: Layout, observer: Observer) -> Stored[Bundle]:
    """Return the recipe's bundle, which is built if it is not there yet.

    Raises:
        QuadbenchError: the recipe cannot be built, or the bundle that is there is damaged.
    """
    bundle = cached(recipe, layout)
    if bundle:
        observer.reused("bundle", bundle.artifact.digest)
        return bundle
    with extra_needed("quad"):
        from quadbench.quad.build import build
    bundle = build(recipe, layout, notify=partial(observer.step, "build"))
    observer.built(bundle.artifact)
    return bundle


def built_for(recipe: Recipe, profiles: Sequence[str], *, layout: Layout, observer: Observer) -> dict[str, Stored[Bundle]]:
    """Return for each device profile the bundle that its devices run; those not there yet are built, doing once what they share.

    Raises:
        QuadbenchError: as `built`.
    """
    recipes = {profile: recipe.on(profile) for profile in profiles}
    unlike = {recipe_digest(own): own for own in recipes.values()}
    if len(unlike) > 1:
        build_all(list(unlike.values()), layout=layout, observer=observer)
    bundles = {digest: built(own, layout=layout, observer=observer) for digest, own in unlike.items()}
    return {profile: bundles[recipe_digest(own)] for profile, own in recipes.items()}


def build_all(recipes: Sequence[Recipe], *, layout: Layout, observer: Observer) -> None:
    """Build those that are not there yet, doing once what they share.

    Raises:
        QuadbenchError: a recipe cannot be built; what was built before is kept.
    """
    unlike = {recipe_digest(recipe): recipe for recipe in recipes}
    missing = [recipe for recipe in unlike.values() if not cached(recipe, layout)]
    if not missing:
        return
    with extra_needed("quad"):
        from quadbench.quad.build import build
        from quadbench.quad.prepare import Intermediates
    with temporary_folder(layout.scratch) as scratch:
        intermediates = Intermediates(scratch)
        for number, recipe in enumerate(missing, start=1):
            which = f"{number} of {len(missing)}"
            build(recipe, layout, notify=partial(_tell_step, observer, which), intermediates=intermediates)


def compiled(
    source: Recipe | Path, target: KnownTarget, *, layout: Layout, observer: Observer
) -> tuple[Stored[Bundle], Stored[CompiledBundle]]:
    """Compile a recipe, which is built if it has to be, or the bundle in a folder. Return the bundle, and what it became.

    Raises:
        MissingDependencyError: the target cannot be compiled for here; nothing was built.
        ArtifactError: a file of the bundle has another content than its manifest says.
        BuildError, ArtifactError: as `compile_bundle`.
    """
    require(target.target, target.key)
    match source:
        case Path():
            bundle = read_manifest(source, Bundle)
        case Recipe():
            bundle = built(source, layout=layout, observer=observer)
    check_contents(bundle, file_refs(bundle.artifact))  # what is compiled is run later, with all that the bundle holds
    return bundle, compile_for(bundle, target.target, target.key, target.htp_arch, layout=layout, observer=observer)


def _tell_step(observer: Observer, which: str, step: str) -> None:
    observer.step("build", f"{which}: {step}")
