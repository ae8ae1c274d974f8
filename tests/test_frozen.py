"""A bundle that was frozen is the one that it was, wherever it came from, and nothing else takes its name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted_harness import World
from support.sentences import raising

from quadbench.artifacts import StoredArtifact, StoredBundle
from quadbench.errors import ArtifactError, UnknownNameError, UserError
from quadbench.results.bundles import freeze, frozen_bundle, frozen_names, read_frozen
from quadbench.results.layout import Layout


def bundle_of(world: World, digest: str = "ab" * 32) -> StoredBundle:
    return StoredArtifact(artifact=replace(world.bundle, digest=digest), folder=world.folder)


def test_a_frozen_bundle_lies_in_the_results_folder_and_is_read_by_its_name(world: World) -> None:
    frozen = freeze("reference", bundle_of(world), world.layout)
    assert read_frozen("reference", world.layout) == frozen
    stored = frozen_bundle("reference", world.layout)
    assert stored.folder == world.layout.bundle("ab" * 32)
    assert stored.artifact == bundle_of(world).artifact
    assert frozen_names(world.layout) == ["reference"]


def test_freezing_again_changes_nothing_and_another_bundle_needs_another_name(world: World) -> None:
    first = freeze("reference", bundle_of(world), world.layout)
    assert freeze("reference", bundle_of(world), world.layout) == first
    with raising(UserError, "reference"):
        freeze("reference", bundle_of(world, "cd" * 32), world.layout)


@pytest.mark.parametrize("name", ["", "../out", "a/b", ".hidden", "a\nb"])
def test_a_name_that_is_no_name_of_a_file_is_refused(world: World, name: str) -> None:
    with raising(UserError):
        freeze(name, bundle_of(world), world.layout)


def test_a_name_under_which_nothing_is_frozen_is_told_with_those_that_are_there(world: World) -> None:
    freeze("reference", bundle_of(world), world.layout)
    with raising(UnknownNameError, "referense"):
        frozen_bundle("referense", world.layout)


@pytest.mark.parametrize("change", [{"bundle": "../../etc"}, {"schema_version": 2}, {"frozen_at": "soon"}])
def test_a_damaged_file_is_refused(world: World, change: dict[str, object]) -> None:
    freeze("reference", bundle_of(world), world.layout)
    path: Path = world.layout.frozen("reference")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with raising(ArtifactError, "reference.json"):
        frozen_bundle("reference", world.layout)


def test_a_bundle_that_is_gone_is_told(world: World, tmp_path: Path) -> None:
    freeze("reference", bundle_of(world), world.layout)
    elsewhere = Layout(tmp_path / "elsewhere")
    elsewhere.frozen_bundles.mkdir(parents=True)
    elsewhere.frozen("reference").write_text(world.layout.frozen("reference").read_text())
    with raising(ArtifactError, "reference", "manifest.json"):
        frozen_bundle("reference", elsewhere)
    freeze("reference", bundle_of(world), elsewhere)
    assert frozen_bundle("reference", elsewhere).artifact.digest == bundle_of(world).artifact.digest
