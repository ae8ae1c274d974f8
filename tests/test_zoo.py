"""The built-in model: folders, sizes and evaluation inputs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.sentences import raising

from quadbench import zoo
from quadbench.errors import UnknownNameError
from training import corpus

LIMIT_BYTES = 17_000_000
ADAPTERS_LIMIT_BYTES = 7_000_000


def test_model_is_complete_and_small() -> None:
    folder = zoo.foundation_folder("emoji-ldm")
    for name in ("model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"):
        assert (folder / name).is_file(), name
    weights = list(folder.rglob("*.safetensors"))
    assert {path.parent.name for path in weights} == {"vae", "unet", "text_encoder"}
    assert sum(path.stat().st_size for path in weights) < LIMIT_BYTES


def test_files_tell_nothing_about_the_machine() -> None:
    for path in zoo.FOLDER.rglob("*.json"):
        assert "_name_or_path" not in path.read_text().replace("base_model_name_or_path", ""), path


def test_no_two_adapters_have_the_same_rank_scale_and_sites() -> None:
    kinds = []
    for name in zoo.ADAPTERS:
        config = json.loads((zoo.adapter_folder(name) / "adapter_config.json").read_text())
        scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
        kinds.append((config["r"], scale, tuple(config["target_modules"])))
    assert len(set(kinds)) == len(zoo.ADAPTERS)


def test_adapters_are_small() -> None:
    sizes = [(zoo.adapter_folder(name) / "adapter_model.safetensors").stat().st_size for name in zoo.ADAPTERS]
    assert sum(sizes) < ADAPTERS_LIMIT_BYTES


@pytest.mark.parametrize("task", zoo.TASKS)
def test_inputs_have_truths_of_the_same_size(task: str) -> None:
    inputs = zoo.task_inputs(task)
    assert len(inputs) == 12
    assert len({item.name for item in inputs}) == len(inputs)
    for item in inputs:
        assert item.truth is not None
        for path in filter(None, (item.image, item.truth)):
            with Image.open(path) as picture:
                assert (picture.size, picture.mode) == ((64, 64), "RGB")
        assert (item.image is None) == (task == "sticker")
        assert (item.mask is not None) == (task == "remove-object")


def test_masks_are_aligned_to_latents_and_cover_the_object() -> None:
    for item in zoo.task_inputs("remove-object"):
        assert item.mask is not None
        assert item.truth is not None
        mask, image, truth = (np.asarray(Image.open(path)) for path in (item.mask, item.image or Path(), item.truth))
        assert set(np.unique(mask)) == {0, 255}
        cells = mask.reshape(16, 4, 16, 4)
        assert (cells.min((1, 3)) == cells.max((1, 3))).all()
        # Nearly transparent pixels of an object's edge do not count as object.
        assert np.abs(image.astype(int) - truth)[mask == 0].max() <= 8


def test_every_source_is_credited() -> None:
    notice = (zoo.FOLDER / "NOTICE.md").read_text()
    for task in zoo.TASKS:
        for entry in json.loads((zoo.FOLDER / "inputs" / task / "inputs.json").read_text()):
            credits = [credit for credit in corpus.EMOJI_CREDITS.values() if credit in entry["source"]]
            assert credits, entry["source"]
    holders = [holder for credit in corpus.EMOJI_CREDITS.values() for holder in credit.split("(c) ")[1:]]
    assert len(holders) == 3
    assert all(holder.rstrip(", ") in notice for holder in holders)
    assert all(author in notice for author, _ in corpus.PHOTO_CREDITS.values())


def test_unknown_names_are_refused() -> None:
    for function in (zoo.foundation_folder, zoo.adapter_folder, zoo.task_inputs):
        with raising(UnknownNameError):
            function("nothing")


def _emoji_package(root: Path, names: list[str]) -> None:
    for source in ("google", "twitter"):
        folder = root / source / "package/img" / source / "64"
        folder.mkdir(parents=True)
        for index in range(len(names)):
            Image.new("RGBA", (64, 64), (index, 0, 0, 255)).save(folder / f"{index}.png")
    listing = [
        {
            "name": name.upper(),
            "short_names": [name.replace(" ", "_")],
            "category": "Objects",
            "subcategory": "face-smiling",
            "has_img_google": True,
            "has_img_twitter": True,
            "image": f"{index}.png",
            "sort_order": index,
            "unified": f"{0x1F600 + index:X}",
        }
        for index, name in enumerate(names)
    ]
    (root / "google/package/emoji.json").write_text(json.dumps(listing))
    keywords = root / "emojilib/package/dist/emoji-en-US.json"
    keywords.parent.mkdir(parents=True)
    keywords.write_text(json.dumps({chr(0x1F600 + index): [name, "keyword", ":)"] for index, name in enumerate(names)}))


def test_held_out_concepts_are_in_no_training_caption(tmp_path: Path) -> None:
    held_out_names = [name.replace("-", " ") for name in corpus.HELD_OUT]
    _emoji_package(tmp_path, [*held_out_names, "anchor", "blue heart"])
    training, held_out = corpus.split(corpus.load_concepts(tmp_path))
    assert {name for concept in training for name in concept.names} == {"anchor", "blue heart"}
    assert {item.name for item in zoo.task_inputs("restyle")} <= {concept.names[0] for concept in held_out}
    assert {word for concept in training for word in concept.keywords} == {"keyword"}


@pytest.mark.parametrize("task", ["sticker", "portrait"])
def test_a_task_holds_out_concepts_of_its_own_and_all_that_the_base_has_not_seen(tmp_path: Path, task: str) -> None:
    own = [name.replace("-", " ") for name in corpus.HELD_OUT_OF_TASK[task]]
    _emoji_package(tmp_path, [*(name.replace("-", " ") for name in corpus.HELD_OUT), *own, "grinning face"])
    training, held_out = corpus.task_split(task, corpus.load_concepts(tmp_path))
    assert [concept.names[0] for concept in training] == ["grinning face"]
    assert {concept.names[0] for concept in held_out} == set(own) == {item.name for item in zoo.task_inputs(task)}
