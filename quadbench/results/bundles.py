"""Bundles: a bundle that may lie anywhere -> the same one in the results folder, where runs and reports look for it."""

from dataclasses import replace
from pathlib import Path

from quadbench.artifacts import Bundle, Stored
from quadbench.artifacts.parts import file_refs
from quadbench.errors import ArtifactError
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
    own, files = layout.bundle(bundle.artifact.digest), tuple(dict.fromkeys(file_refs(bundle.artifact)))

    def fill(folder: Path) -> Bundle:
        try:
            for file in files:
                link(bundle.path(file), folder / file.path)
            check_contents(replace(bundle, folder=folder), files)  # what is kept, whatever becomes of the bundle meanwhile
        except (ArtifactError, OSError):
            check_contents(bundle, files)  # which names a file that is wrong where it lies
            raise
        return bundle.artifact

    if bundle.folder.resolve() != own.resolve():
        return publish(own, fill)
    check_contents(bundle, files)
    return bundle
