"""Items: a task's items from prompts, from inputs with images, and from inputs without."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from quadbench import zoo
from quadbench.errors import UserError
from quadbench.recipe import Task

pytest.importorskip("torch")
from quadbench.quad.model.foundation import Foundation, load_foundation
from quadbench.quad.tasks.items import task_items

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
    with pytest.raises(UserError, match="has no image; image-to-image needs one"):
        task_items(task(tmp_path, "image-to-image", strength=0.5, inputs=STICKERS), foundation, calibration_samples=1)
