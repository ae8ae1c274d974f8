"""Pairs: what the built-in image-to-image adapters learn from, and from where on their sampler starts."""

import pytest

pytest.importorskip("peft")
from quadbench.quad.samplers.olss import ddim_table
from quadbench.zoo.training import captions, image_to_image, noise


@pytest.mark.parametrize("strength", image_to_image.STRENGTH.values())
@pytest.mark.parametrize("steps", [20, 50, 100])
def test_the_sampler_starts_where_the_adapter_was_trained(strength: float, steps: int) -> None:
    table = ddim_table(noise.ALPHA_BAR, steps=steps, strength=strength)
    low, high = image_to_image.start_times(strength)
    assert low <= table.timesteps[0] < high


@pytest.mark.parametrize(
    ("name", "caption"),
    [("tangerine", "noto orange tangerine"), ("orange book", "noto orange book"), ("oranges", "noto orange oranges")],
)
def test_a_sketch_s_caption_names_the_colour_once(name: str, caption: str) -> None:
    assert captions.coloured("noto", "orange", name) == caption
