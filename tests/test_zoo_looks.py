"""Looks: what the built-in tasks turn an emoji into."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training import looks

RED = (221, 46, 68)


@pytest.fixture
def cutout() -> Image.Image:
    """A red disk of 40 pixels on nothing."""
    image = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(image).ellipse((12, 12, 51, 51), fill=RED)
    return image


def test_a_sketch_is_lines_without_colour(cutout):
    sketch = looks.sketch(cutout)
    assert np.ptp(sketch, axis=2).max() == 0
    assert sketch[32, 32, 0] == 255  # inside the disk
    assert sketch[2, 2, 0] == 255
    assert sketch[32, 8:16, 0].min() < 64  # its edge


def test_a_sticker_is_outlined_in_white_on_plain_blue(cutout):
    row = looks.sticker(cutout)[32, :32]  # from the left border to the middle
    blue, white, red = ((row.astype(int) - colour) ** 2 for colour in (looks.STICKER_BACKGROUND, (255, 255, 255), RED))
    blue, white, red = (np.flatnonzero(distance.sum(1) < 300) for distance in (blue, white, red))
    assert blue.max() < white.min() <= white.max() < red.min()


def test_a_cyanotype_is_blue_on_white(cutout):
    cyanotype = looks.cyanotype(cutout)
    assert tuple(cyanotype[0, 0]) == (255, 255, 255)
    red, green, blue = cyanotype[32, 32]
    assert red < green < blue


def test_a_lighter_emoji_gives_a_lighter_cyanotype(cutout):
    light = Image.new("RGBA", (64, 64), (255, 204, 77, 255))
    assert looks.cyanotype(light)[32, 32].sum() > looks.cyanotype(cutout)[32, 32].sum()


def test_the_colour_is_that_of_most_pixels(cutout):
    ImageDraw.Draw(cutout).rectangle((28, 28, 36, 36), fill="white")
    assert looks.colour_word(cutout) == "red"


def test_a_variation_has_other_hues_alone_and_is_the_same_in_all_styles(cutout):
    varied = looks.varied({"twemoji": cutout, "noto": cutout}, random.Random(1), is_recoloured=True)
    assert varied["twemoji"].tobytes() == varied["noto"].tobytes()
    hues, saturations, values = (
        np.array([picture.convert("RGB").convert("HSV").getpixel((32, 32))[channel] for picture in (cutout, varied["noto"])])
        for channel in range(3)
    )
    assert abs(np.ptp(hues) - 128) < 123  # they lie on a circle of 256
    assert np.ptp(saturations) <= 3
    assert np.ptp(values) <= 3


@pytest.mark.parametrize("seed", range(5))
def test_a_variation_is_turned_and_squeezed_around_the_middle(cutout, seed):
    opacity = np.asarray(looks.varied({"noto": cutout}, random.Random(seed), is_recoloured=True)["noto"].getchannel("A")) / 255
    area, before = opacity.sum(), (np.asarray(cutout.getchannel("A")) / 255).sum()
    assert (1 - looks.MOST_SHORTER) ** 2 * 0.97 < area / before < 1.01
    assert (opacity * np.arange(64)).sum() / area == pytest.approx(31.5, abs=0.3)
    assert (opacity * np.arange(64)[:, None]).sum() / area == pytest.approx(31.5, abs=0.3)


def test_a_variation_s_greys_stay_grey(cutout):
    grey = Image.new("RGBA", (64, 64), (120, 120, 120, 255))
    red, green, blue, _ = looks.varied({"noto": grey}, random.Random(2), is_recoloured=True)["noto"].getpixel((32, 32))
    assert red == green == blue


def test_a_variation_can_keep_its_hues(cutout):
    varied = looks.varied({"noto": cutout}, random.Random(1), is_recoloured=False)["noto"]
    assert varied.getpixel((32, 32))[:3] == pytest.approx(RED, abs=2)
    assert varied.tobytes() != cutout.tobytes()
