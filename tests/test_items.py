"""Items: a task's items from prompts, from inputs with images, and from inputs without."""

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import TypeAdapter
from support.sentences import raising

from quadbench import zoo
from quadbench.artifacts.pixels import blend_mask
from quadbench.errors import UserError
from quadbench.recipe import Task

pytest.importorskip("torch")
from quadbench.quad.inputs import read_picture
from quadbench.quad.items import task_items
from quadbench.quad.model.foundation import Foundation, load_foundation

STICKERS = {"source": "builtin", "name": "sticker"}


@pytest.fixture(scope="module")
def foundation() -> Foundation:
    return load_foundation(zoo.foundation_folder("emoji-ldm"))


def task(tmp_path: Path, kind: str, **options: Any) -> Task:
    document = {"name": "it", "kind": kind, "adapter": None, "sampler": {"scheme": "ed", "steps": 2}, **options}
    return TypeAdapter(Task).validate_python(document, context={"folder": tmp_path})


def test_prompts_of_inputs_bring_their_truths(foundation, tmp_path):
    items = task_items(task(tmp_path, "text-to-image", inputs=STICKERS), foundation, calibration_samples=2).evaluation
    known = zoo.task_inputs("sticker")
    assert [(item.name, item.prompt, item.truth_path) for item in items] == [(i.name, i.prompt, i.truth) for i in known]
    assert all(item.image is None for item in items)


def test_prompts_serve_calibration_too_with_other_noise(foundation, tmp_path):
    items = task_items(task(tmp_path, "text-to-image", prompts=("one", "two")), foundation, calibration_samples=3)
    assert [item.prompt for item in items.calibration] == ["one", "two", "one"]
    seeds = [item.seed for item in (*items.evaluation, *items.calibration)]
    assert len(set(seeds)) == len(seeds)


def test_inputs_with_images_are_either_evaluated_or_calibrated_on(foundation, tmp_path):
    inputs = {"source": "builtin", "name": "portrait"}
    items = task_items(task(tmp_path, "image-to-image", strength=0.5, inputs=inputs), foundation, calibration_samples=4)
    assert [item.name for item in (*items.evaluation, *items.calibration)] == [i.name for i in zoo.task_inputs("portrait")]
    assert len(items.calibration) == 4


def test_an_input_without_image_is_refused_where_one_is_needed(foundation, tmp_path):
    with raising(UserError, "image-to-image"):
        task_items(task(tmp_path, "image-to-image", strength=0.5, inputs=STICKERS), foundation, calibration_samples=1)


def folder_task(tmp_path: Path, **sizes: tuple[int, int]) -> Task:
    """A task with one input, whose image and truth have the sizes that are given."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for name, size in {"image": (64, 64), "truth": (64, 64), **sizes}.items():
        Image.new("RGB", size).save(folder / f"{name}.png")
    entry = {"name": "one", "image": "image.png", "truth": "truth.png", "prompt": "p"}
    (folder / "inputs.json").write_text(json.dumps([entry, entry | {"name": "two"}]))
    return task(tmp_path, "image-to-image", strength=0.5, inputs={"source": "folder", "path": Path("inputs")})


@pytest.mark.parametrize("name", ["image", "truth"])
def test_a_picture_of_another_size_is_refused_before_anything_is_built(foundation, tmp_path, name):
    with raising(UserError, f"{name}.png", "32x64", "64x64"):
        task_items(folder_task(tmp_path, **{name: (32, 64)}), foundation, calibration_samples=1)


def test_a_picture_that_would_fill_the_memory_is_refused_unread(foundation, tmp_path):
    it = folder_task(tmp_path)
    path = tmp_path / "inputs/image.png"
    content = bytearray(path.read_bytes())
    content[16:24] = (50_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with raising(UserError, "image.png"):
        task_items(it, foundation, calibration_samples=1)


@pytest.mark.parametrize("name", ["image", "truth"])
def test_what_is_no_picture_is_refused(foundation, tmp_path, name):
    it = folder_task(tmp_path)
    (tmp_path / f"inputs/{name}.png").write_bytes(b"root:x:0:0")
    with raising(UserError, f"{name}.png"):
        task_items(it, foundation, calibration_samples=1)


@pytest.mark.parametrize("composite", [True, False])
def test_inpainting_composites_with_its_input_unless_the_task_says_otherwise(foundation, tmp_path, composite):
    options = {"inputs": {"source": "builtin", "name": "remove-object"}} | ({} if composite else {"composite": False})
    for item in task_items(task(tmp_path, "inpaint", **options), foundation, calibration_samples=4).evaluation:
        assert (item.blend is not None) == composite
        if item.blend is not None:
            assert item.blend.tobytes() == blend_mask(item.mask[0, 0].numpy() > 0).tobytes()


def test_a_mask_that_replaces_nothing_of_a_latent_is_refused_by_its_inputs_name(foundation, tmp_path):
    inputs = folder_task(tmp_path).inputs
    mask = Image.new("L", (64, 64))
    mask.putpixel((1, 1), 255)  # between the pixels that the nearest neighbour takes
    mask.save(tmp_path / "inputs/mask.png")
    entries = [{"name": n, "image": "image.png", "mask": "mask.png", "prompt": "p"} for n in ("one", "two")]
    (tmp_path / "inputs/inputs.json").write_text(json.dumps(entries))
    with raising(UserError, "one", "it", "16x16"):
        task_items(task(tmp_path, "inpaint", inputs=inputs), foundation, calibration_samples=1)


@pytest.mark.parametrize(("kind", "mode"), [("RGBA", "RGB"), ("L", "RGB"), ("P", "RGB"), ("RGB", "L"), ("1", "L")])
def test_a_picture_of_another_kind_becomes_the_pixels_that_a_device_reads(tmp_path, kind, mode):
    Image.new("RGB", (8, 8), "white").convert(kind).save(tmp_path / "it.png")
    read_picture(tmp_path / "it.png", mode, 8).save(tmp_path / "written.png")
    with Image.open(tmp_path / "written.png") as written:
        assert (written.mode, written.getpixel((3, 3))) == (mode, 255 if mode == "L" else (255, 255, 255))
