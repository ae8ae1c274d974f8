"""A bundle that lies elsewhere comes into the results folder as its manifest says, and nowhere else, or is refused."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted_harness import World
from support.sentences import raising

from quadbench.artifacts import Bundle, StoredBundle
from quadbench.artifacts.run_record import file_refs
from quadbench.errors import ArtifactError
from quadbench.results import bundles
from quadbench.results.bundles import store_bundle
from quadbench.results.layout import Layout
from quadbench.results.manifest import publish, read_checked, read_manifest


@pytest.fixture
def elsewhere(world: World, tmp_path: Path) -> StoredBundle:
    """A bundle with its manifest, in a folder of somebody's."""

    def fill(folder: Path) -> Bundle:
        shutil.copytree(world.folder, folder, dirs_exist_ok=True)
        return world.bundle

    return publish(tmp_path / "somebody" / "bundle", fill)


def first_file(bundle: StoredBundle) -> Path:
    return bundle.path(next(file_refs(bundle.artifact)))


@pytest.mark.parametrize("digest", ["../../../x", "..", ".", "", "/", "scratch", "ab", "AB" * 32])
def test_a_bundle_whose_digest_is_none_is_not_read(digest: str, elsewhere: StoredBundle, tmp_path: Path) -> None:
    named = publish(tmp_path / "named", lambda folder: replace(elsewhere.artifact, digest=digest, graphs=(), tasks=()))
    with raising(ArtifactError, "SHA-256"):
        read_manifest(named.folder, Bundle)


@pytest.mark.parametrize("is_relative", [True, False])
def test_a_file_that_is_a_link_is_kept_as_what_it_leads_to(
    is_relative: bool, elsewhere: StoredBundle, layout: Layout, tmp_path: Path
) -> None:
    path = first_file(elsewhere)
    target = path.rename(tmp_path / "target")
    path.symlink_to(os.path.relpath(target, path.parent) if is_relative else target)
    stored = store_bundle(read_manifest(elsewhere.folder, Bundle), layout)
    path.unlink()
    assert read_checked(stored.folder, Bundle).artifact == elsewhere.artifact
    assert not first_file(stored).is_symlink()


def test_a_file_that_is_changed_while_the_bundle_is_kept_keeps_it_out(
    elsewhere: StoredBundle, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = first_file(elsewhere), bundles.link_file

    def late(source: Path, target: Path) -> None:
        if source == path:
            path.write_bytes(bytes(path.stat().st_size))
        link(source, target)

    monkeypatch.setattr(bundles, "link_file", late)
    with raising(ArtifactError, path):
        store_bundle(elsewhere, layout)
    assert list(layout.bundles.iterdir()) == []


def test_a_file_that_goes_while_the_bundle_is_kept_is_named(elsewhere: StoredBundle, layout: Layout) -> None:
    path = first_file(elsewhere)
    path.unlink()
    with raising(ArtifactError, path, "No such file"):
        store_bundle(elsewhere, layout)
    assert list(layout.bundles.iterdir()) == []


def test_a_file_that_cannot_be_looked_up_is_named(elsewhere: StoredBundle) -> None:
    path = first_file(elsewhere)
    path.unlink()
    path.symlink_to("x" * 256)  # which no file system takes
    with raising(ArtifactError, path, "File name too long"):
        read_manifest(elsewhere.folder, Bundle)
