"""Shared files: contents -> small artifacts and launches in a results folder, and a store's objects, spoilt."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from quadbench.artifacts import Bundle, Component, DeviceFacts, Graph, RunRecord, StoredBundle, Variant
from quadbench.farm.store.objects import Store
from quadbench.results.layout import Layout
from quadbench.results.manifest import file_ref, publish
from support.bundles import bundle_of
from support.stored_records import DEVICE, record

CONTENTS = {"profile.json": b"{}", "shared/unet.onnx": b"a graph" * 1000, "float/unet.onnx": b"another graph"}
DAY_S = timedelta(days=1).total_seconds()


def digest_of_name(name: str) -> str:
    """Return a digest for an artifact that a test calls so."""
    return hashlib.sha256(name.encode()).hexdigest()


def write_shared_bundle(layout: Layout, name: str = "one", contents: Mapping[str, bytes] = CONTENTS) -> StoredBundle:
    """Publish a bundle with these files, `profile.json` among them, where its digest says that it lies."""

    def fill(folder: Path) -> Bundle:
        for path, content in contents.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        graphs = [
            Graph(variant=Variant(path.partition("/")[0]), component=Component.UNET, file=file, inputs=(), outputs=())
            for path in contents
            if path != "profile.json"
            for file in [file_ref(folder, folder / path)]
        ]
        return bundle_of(file_ref(folder, folder / "profile.json"), graphs, digest=digest_of_name(name))

    return publish(layout.bundle(digest_of_name(name)), fill)


def write_launch(layout: Layout, run_id: str = "run-a", launch: int = 0, facts: DeviceFacts = DEVICE) -> RunRecord:
    """Write the files of a launch with one picture, and return its record."""
    stored = record(run_id=run_id, launch=launch, device=facts)
    folder = layout.launch(run_id, stored.device.address, stored.variant, launch)
    picture = folder / "images/restyle/000.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(f"picture {launch}".encode())
    (folder / "plan.json").write_text("{}")
    (folder / "events.jsonl").write_text("")
    return replace(stored, images={"restyle/000": layout.relative(picture)})


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def keys(store: Store, prefix: str = "objects") -> list[str]:
    """Return the keys below a prefix of a store."""
    return sorted(listed["path"] for listed in store.place.listed(prefix))


def flip(store: Store, key: str) -> None:
    """Change one byte of a file in a store; its size stays."""
    listed = store.place.look(key)
    assert listed
    content = b"".join(store.place.read(key, listed["size"]))
    store.place.put(key, content[:-1] + bytes([content[-1] ^ 1]))
