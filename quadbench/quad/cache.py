"""Cache: a recipe -> the bundle that the same inputs made before, if there is one. Without torch."""

from quadbench.artifacts import Bundle, Stored
from quadbench.quad.sources import bundle_digest
from quadbench.recipe import Recipe
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest


def cached(recipe: Recipe, layout: Layout) -> Stored[Bundle] | None:
    """Return the recipe's bundle, or None where it has to be built.

    Raises:
        ArtifactError: the bundle is damaged.
    """
    folder = layout.bundle(bundle_digest(recipe))
    return read_manifest(folder, Bundle) if folder.is_dir() else None
