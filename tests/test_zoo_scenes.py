"""Scenes: the world that the built-in model is trained on and that `remove-object` is judged by."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training import grounds, scenes

SEEDS = range(20)


@pytest.fixture
def emoji() -> list[scenes.Named]:
    """Disks of four colours."""
    named = []
    for name, colour in (("red", (220, 40, 60)), ("blue", (60, 130, 220)), ("black", (0, 0, 0)), ("white", (255, 255, 255))):
        cutout = Image.new("RGBA", (64, 64))
        ImageDraw.Draw(cutout).ellipse((2, 2, 61, 61), fill=colour)
        named.append(scenes.Named(name=name, cutout=cutout))
    return named


@pytest.mark.parametrize("seed", SEEDS)
def test_a_scene_and_its_truth_differ_under_the_mask_only(emoji: list[scenes.Named], seed: int) -> None:
    scene = scenes.draw(emoji, random.Random(seed))
    difference = np.abs(scene.composite.astype(int) - scene.truth).max(2)
    assert difference[scene.mask == 0].max() <= scenes.FAINT
    assert difference[scene.mask > 0].max() > 30


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mask_hides_ground_and_no_neighbour(emoji: list[scenes.Named], seed: int) -> None:
    scene, ground = scenes.draw(emoji, random.Random(seed)), grounds.draw(random.Random(seed))
    assert (scene.truth == ground.picture)[scene.mask > 0].all()


def test_scenes_come_again_from_the_same_seed(emoji: list[scenes.Named]) -> None:
    first, second = (scenes.draw(emoji, random.Random(7)) for _ in range(2))
    assert first.words == second.words
    assert (first.composite == second.composite).all()


def test_a_scene_says_what_is_in_it(emoji: list[scenes.Named]) -> None:
    words = scenes.draw(emoji, random.Random(1)).words
    ground, objects = words.split(" scene of ")
    assert ground.split()[1] in grounds.SHARES
    assert set(objects.split(" and ")) <= {"red", "blue", "black", "white"}


@pytest.mark.parametrize(
    ("colour", "word"),
    [
        ((221, 46, 68), "red"),
        ((119, 178, 85), "green"),
        ((60, 130, 220), "blue"),
        ((150, 155, 150), "grey"),
        ((230, 40, 70), "red"),
    ],
)
def test_grounds_go_by_their_hue(colour: tuple[int, int, int], word: str) -> None:
    assert grounds.hue_word(np.array(colour, float)) == word


def test_every_kind_of_ground_is_drawn() -> None:
    drawn = {grounds.draw(random.Random(seed)).words.split()[1] for seed in range(100)}
    assert drawn == set(grounds.SHARES) == set(grounds.COVERAGES)
