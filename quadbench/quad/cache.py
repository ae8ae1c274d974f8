"""Cache: Recipe -> the bundle that the same inputs made before, if there is one. Without torch."""

from pathlib import Path

from quadbench.artifacts import Bundle
from quadbench.manifest import read_manifest
from quadbench.quad.sources import bundle_digest
from quadbench.recipe import Recipe


def bundle_folder(digest: str, bundles: Path) -> Path:
    """Where the bundle of a digest lies, or will."""
    return bundles / digest[:16]


def cached(recipe: Recipe, bundles: Path) -> tuple[Bundle, Path] | None:
    """The bundle and its folder; None where it has to be built. Raises: ArtifactError where it is damaged."""
    folder = bundle_folder(bundle_digest(recipe), bundles)
    return (read_manifest(folder, Bundle), folder) if folder.is_dir() else None
