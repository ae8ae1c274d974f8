"""What a build takes from earlier ones: nothing stale, nothing damaged, and no graph is exported twice."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from support.tiny_model import tiny_unet, write_adapter  # noqa: E402

from quadbench.artifacts import StoredBundle  # noqa: E402
from quadbench.artifacts.run_record import file_refs  # noqa: E402
from quadbench.quad import model_files  # noqa: E402
from quadbench.quad.build import build  # noqa: E402
from quadbench.quad.cache import digests_of  # noqa: E402
from quadbench.quad.part_store import PartStore  # noqa: E402
from quadbench.quad.parts import BuildParts, content_digest  # noqa: E402
from quadbench.quad.prepare import BuildCache  # noqa: E402
from quadbench.quad.quantize.encodings import Range  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402
from quadbench.results.maintenance import remove_unused_parts  # noqa: E402
from quadbench.results.manifest import temporary_folder  # noqa: E402

WIDER = {"r": 8, "lora_alpha": 8, "target_modules": ["to_q", "ff.net.2", "time_emb_proj", "conv_in", "proj_out"]}
Document = dict[str, Any]


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The classes of the modules that are exported from now on."""
    exported: list[str] = []
    export = torch.onnx.export

    def count(module: Any, *args: Any, **options: Any) -> Any:
        exported.append(type(module).__name__)
        return export(module, *args, **options)

    monkeypatch.setattr(torch.onnx, "export", count)
    return exported


@pytest.fixture
def recipe(tiny_recipe: Path, tmp_path: Path) -> Path:
    """A copy of the tiny recipe."""
    return Path(shutil.copytree(tiny_recipe.parent, tmp_path / "tiny")) / "recipe.yaml"


@pytest.fixture
def layout(tiny_bundle: StoredBundle, tmp_path: Path) -> Layout:
    """A results folder with the parts of the tiny bundle's build, and without the bundle."""
    copy = Layout(tmp_path / "results")
    shutil.copytree(Layout(tiny_bundle.folder.parent.parent).parts, copy.parts)
    return copy


def changed(recipe: Path, change: Callable[[Document], object]) -> Path:
    document = yaml.safe_load(recipe.read_text())
    change(document)
    recipe.write_text(yaml.safe_dump(document))
    return recipe


def with_third_adapter(recipe: Path) -> Path:
    """Add an adapter with new sites and a greater rank than any before, and a task that uses it."""
    torch.manual_seed(3)
    write_adapter(tiny_unet(), recipe.parent / "adapters" / "third", **WIDER)

    def change(document: Document) -> None:
        document["adapters"]["third"] = {"source": "peft", "path": "adapters/third"}
        document["tasks"].append(deepcopy(document["tasks"][1]) | {"name": "third", "adapter": "third"})

    return changed(recipe, change)


def files_of(bundle: StoredBundle) -> dict[str, str]:
    """The content of each file. That of adapters is their tensors', as safetensors writes metadata in any order."""
    contents = {file.path: file.sha256 for file in file_refs(bundle.artifact)}
    return contents | {a.file.path: content_digest(load_file(bundle.path(a.file))) for a in bundle.artifact.adapters}


def made_for(recipe: Path, layout: Layout) -> tuple[StoredBundle, dict[str, int]]:
    """Build a recipe. Return its bundle and how many parts of each kind were made for it."""
    with temporary_folder(layout.scratch) as scratch:
        cache = BuildCache(scratch, layout.parts)
        return build(load_recipe(recipe), layout, intermediates=cache), dict(cache.store.made)


@pytest.mark.slow
def test_one_more_adapter_exports_nothing_and_its_bundle_is_that_of_a_fresh_build(
    recipe: Path, layout: Layout, exports: list[str], tmp_path: Path
) -> None:
    third = load_recipe(with_third_adapter(recipe))
    reused = build(third, layout)
    assert exports == []
    fresh = build(third, Layout(tmp_path / "fresh"))
    assert exports == ["TextEncoderGraph", "VaeEncoderGraph", "VaeDecoderGraph", "UnetGraph"]
    assert files_of(reused) == files_of(fresh)


def test_the_same_recipe_makes_no_part_again_and_comes_out_the_same(
    recipe: Path, layout: Layout, tiny_bundle: StoredBundle, exports: list[str]
) -> None:
    again, made = made_for(recipe, layout)
    assert (exports, made) == ([], {})
    assert files_of(again) == files_of(tiny_bundle)


def test_another_number_of_steps_runs_and_observes_that_task_alone(recipe: Path, layout: Layout, exports: list[str]) -> None:
    changed(recipe, lambda document: document["tasks"][1]["sampler"].update(steps=3))
    _, made = made_for(recipe, layout)
    assert exports == []
    # A run to calibrate with and one over held-out inputs. Ranges: of the VAE decoder once, of the shared U-Net with the
    # adapter and without it, and of a U-Net for each of three tasks.
    assert made == {"run": 2, "ranges": 6, "pictures": 1}


def test_one_more_prompt_leaves_other_tasks_and_all_graphs_as_they_are(recipe: Path, layout: Layout, exports: list[str]) -> None:
    changed(recipe, lambda document: document["tasks"][2]["prompts"].append("noto pear"))
    _, made = made_for(recipe, layout)
    assert exports == []
    assert made["run"] == 2
    assert made["pictures"] == 1
    assert "table" not in made


def test_other_weights_packages_or_code_give_other_keys(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> str:
        foundation = digests_of(load_recipe(recipe)).foundation
        return BuildParts(store=PartStore(tmp_path, tmp_path), foundation=foundation).key("quadbench.quad.items", "value")

    keys = [key()]
    changed(recipe, lambda document: document["tasks"].pop())
    assert key() == keys[0]
    weights = recipe.parent / "model/unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    keys.append(key())
    versions = model_files.tool_versions() | {"onnxscript": "0.0"}
    monkeypatch.setattr(model_files, "tool_versions", lambda: versions)
    keys.append(key())
    monkeypatch.setattr("quadbench.quad.parts.code_digests", lambda module: {module: "changed"})
    assert len({*keys, key()}) == 4


@pytest.mark.slow
def test_damaged_parts_are_made_again_and_the_bundle_is_the_same(
    recipe: Path, layout: Layout, tiny_bundle: StoredBundle, exports: list[str]
) -> None:
    spoilt = sorted(layout.parts.iterdir())
    for number, part in enumerate(spoilt):
        file = max((path for path in part.iterdir()), key=lambda path: path.stat().st_size)
        if number % 3 == 0:
            file.write_bytes(file.read_bytes()[:-1] + b"\xff\xff")
        elif number % 3 == 1:
            file.unlink()
        else:
            (part / "part.json").write_text("{}")
    again, made = made_for(recipe, layout)
    assert len(exports) == 4
    assert sum(made.values()) == len(spoilt)
    assert files_of(again) == files_of(tiny_bundle)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PartStore]:
    (tmp_path / "scratch").mkdir()
    return PartStore(tmp_path / "parts", tmp_path / "scratch")


def write(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "text").write_text(text)


def test_builds_at_once_get_whole_parts_and_leave_one(tmp_path: Path) -> None:
    def build_parts(number: int) -> set[str]:
        scratch = tmp_path / f"scratch-{number}"
        scratch.mkdir()
        own = PartStore(tmp_path / "parts", scratch)
        return {(own.folder("kind", {"i": i}, write(str(i) * 10_000)) / "text").read_text()[:2] for i in range(20)}

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(build_parts, range(8)))
    assert texts == [{str(i)[:1] * 2 if i < 10 else str(i) for i in range(20)}] * 8
    assert len(list((tmp_path / "parts").iterdir())) == 20


def test_a_part_is_not_taken_for_another_kind_or_dependency(store: PartStore, tmp_path: Path) -> None:
    for kind, depends in (("a", 1), ("a", 2), ("b", 1)):
        store.folder(kind, {"on": depends}, write(f"{kind}{depends}"))
    (other := tmp_path / "other").mkdir()
    later = PartStore(store.root, other)
    again = [
        (later.folder(kind, {"on": n}, write("made anew")) / "text").read_text() for kind, n in (("a", 2), ("b", 1), ("a", 1))
    ]
    assert again == ["a2", "b1", "a1"]
    assert not later.made


def test_unused_parts_are_removed_while_a_build_keeps_its_own(store: PartStore, tmp_path: Path) -> None:
    folders = {name: store.folder("kind", {"name": name}, write(name)) for name in ("old", "used")}
    for part in store.root.iterdir():
        os.utime(part, (time.time() - 1000,) * 2)
    (tmp_path / "later").mkdir()
    PartStore(store.root, tmp_path / "later").folder("kind", {"name": "used"}, write("made anew"))
    remove_unused_parts(Layout(tmp_path), 500)
    assert len(list(store.root.iterdir())) == 1
    assert {name: (folder / "text").read_text() for name, folder in folders.items()} == {"old": "old", "used": "used"}


def test_a_part_whose_making_fails_is_not_kept(store: PartStore) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyError

    with pytest.raises(KeyError):
        store.folder("kind", {}, fail)
    assert not list(store.root.iterdir())
    assert (store.folder("kind", {}, write("whole")) / "text").read_text() == "whole"


def test_a_digest_tells_contents_apart_and_does_not_look_at_places() -> None:
    array = np.arange(6, dtype=np.float32)
    unlike = [
        array,
        array.reshape(2, 3),
        array.astype(np.float64),
        array + 1,
        [array],
        [array, array],
        {"a": array},
        {"b": array},
        1,
        1.0,
        True,
        "1",
        None,
        Range(low=0.0, high=1.0),
        Range(low=0.0, high=2.0),
        Image.new("RGB", (2, 2)),
        Image.new("L", (2, 6)),
        ("a", "bc"),
        ("ab", "c"),
    ]
    assert len({content_digest(value) for value in unlike}) == len(unlike)
    assert content_digest({"a": 1, "b": torch.ones(2)}) == content_digest({"b": np.ones(2, np.float32), "a": 1})
    assert content_digest([Path("a")]) == content_digest([Path("b")])
    assert content_digest([array + i for i in range(9)]) != content_digest([array + i for i in range(8)] + [array])
