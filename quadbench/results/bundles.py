"""Bundles: a bundle that may lie anywhere -> the same one in the results folder, where runs and reports look for it."""

from pathlib import Path

from quadbench.artifacts import Bundle, Stored
from quadbench.artifacts.parts import file_refs
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents, link, publish


def in_results(bundle: Stored[Bundle], layout: Layout) -> Stored[Bundle]:
    """Return a bundle where it lies in the results folder; one that lies elsewhere is kept there.

    Raises:
        ArtifactError: one that lies elsewhere is damaged.
        StorageError: the results folder is full or cannot be written.
    """
    return bundle if bundle.folder.resolve().parent == layout.bundles.resolve() else kept(bundle, layout)


def kept(bundle: Stored[Bundle], layout: Layout) -> Stored[Bundle]:
    """Return a bundle, whole, as it lies under its digest in the results folder; its files are linked there, or else copied.

    Raises:
        ArtifactError: the bundle is damaged.
        StorageError: the results folder is full or cannot be written.
    """

    def fill(folder: Path) -> Bundle:
        for file in dict.fromkeys(file_refs(bundle.artifact)):
            link(bundle.path(file), folder / file.path)
        return bundle.artifact

    check_contents(bundle, file_refs(bundle.artifact))
    own = layout.bundle(bundle.artifact.digest)
    return bundle if bundle.folder.resolve() == own.resolve() else publish(own, fill)
