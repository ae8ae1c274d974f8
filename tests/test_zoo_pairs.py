"""Pairs: what the built-in image-to-image adapters learn from, and from where on their sampler starts."""

import pytest
from PIL import Image

pytest.importorskip("peft")
from quadbench.quad.samplers.ddim import ddim_table
from quadbench.quad.samplers.schedule import Schedule
from training import captions, corpus, image_to_image, noise


@pytest.mark.parametrize("strength", image_to_image.STRENGTH.values())
@pytest.mark.parametrize("steps", [20, 50, 100])
def test_the_sampler_starts_where_the_adapter_was_trained(strength: float, steps: int) -> None:
    table = ddim_table(Schedule(alphas=tuple(noise.ALPHA_BAR.double().tolist())), steps=steps, strength=strength)
    low, high = image_to_image.start_times(strength)
    assert low <= table.timesteps[0] < high


@pytest.mark.parametrize(
    ("name", "caption"),
    [("tangerine", "noto orange tangerine"), ("orange book", "noto orange book"), ("oranges", "noto orange oranges")],
)
def test_a_sketch_s_caption_names_the_colour_once(name: str, caption: str) -> None:
    assert captions.coloured("noto", "orange", name) == caption


def concept(name: str) -> corpus.Concept:
    cutouts = {style: Image.new("RGBA", (64, 64), colour) for style, colour in (("twemoji", "red"), ("noto", (150, 95, 60)))}
    return corpus.Concept(names=(name,), keywords=(), is_sign=False, is_thing=True, is_face=False, cutouts=cutouts)


def test_an_emoji_with_a_colour_in_its_name_is_not_recoloured() -> None:
    pairs = image_to_image.training_pairs("restyle", [concept("red apple"), concept("tulip")])
    varied = [pair for pair in pairs if pair.source[32, 32].tolist() != [255, 0, 0]]
    assert len(pairs) == 2 + 3
    assert len(varied) == 3  # the tulip's


def test_a_drawing_s_variations_keep_the_usual_colour() -> None:
    pairs = image_to_image.training_pairs("sketch-to-image", [concept("tulip")])
    assert len(pairs) == 2 * 3
    assert {text for pair in pairs for text in pair.wording.texts} == {"twemoji red tulip", "noto brown tulip"}
