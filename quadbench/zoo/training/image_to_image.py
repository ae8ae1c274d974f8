"""Image to image: pairs of pictures and a frozen base -> the adapters `restyle`, `sketch-to-image` and `portrait`.

All three are for a deterministic sampler and are trained on the very path that it walks. Image-to-image starts at
x_s = sqrt(a_s) z_src + sqrt(1 - a_s) eps. With c0 = sqrt(a_s / (1 - a_s)) and E = eps + c0 (z_src - z_tgt) the same x_s is
sqrt(a_s) z_tgt + sqrt(1 - a_s) E: noise that carries what is left of the source. A DDIM step with a U-Net that answers E moves
x_t along sqrt(a_t) z_tgt + sqrt(1 - a_t) E and keeps E, down to z_tgt. So the input is that x_t for t in (0, s] and the target
is E.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from quadbench.zoo.training import adapters, autoencoder, corpus, looks, noise, text_to_image

# The more of the noise schedule is run, the more is invented and the less is kept.
STRENGTH = {"restyle": 0.7, "sketch-to-image": 0.35, "portrait": 0.4}
STYLES = {"restyle": ("noto",), "sketch-to-image": ("twemoji", "noto"), "portrait": ("twemoji", "noto")}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two uint8 pictures (64, 64, 3) and the captions that the second may have."""

    source: np.ndarray
    target: np.ndarray
    captions: tuple[str, ...]


def restyle_pair(concept: corpus.Concept, style: str) -> Pair:
    """Twemoji to another style."""
    return Pair(
        source=concept.images["twemoji"],
        target=concept.images[style],
        captions=tuple(text_to_image.caption(style, name) for name in concept.names),
    )


def sketch_pair(concept: corpus.Concept, style: str) -> Pair:
    """Line drawing to picture. The captions name the colour, which a drawing does not show."""
    cutout = concept.cutouts[style]
    colour = looks.colour_word(cutout)
    return Pair(
        source=looks.sketch(cutout),
        target=concept.images[style],
        captions=tuple(coloured_caption(style, colour, name) for name in concept.names),
    )


def portrait_pair(concept: corpus.Concept, style: str) -> Pair:
    """Face to cyanotype."""
    return Pair(
        source=concept.images[style],
        target=looks.cyanotype(concept.cutouts[style]),
        captions=tuple(text_to_image.caption(style, name) for name in concept.names),
    )


def source_style(task: str, style: str) -> str:
    """Whose picture the source is made from."""
    return "twemoji" if task == "restyle" else style


def coloured_caption(style: str, colour: str, name: str) -> str:
    """'noto orange tangerine', and 'noto orange book' where the name says it already."""
    return text_to_image.caption(style, name if colour in name.split() else f"{colour} {name}")


PAIR: dict[str, Callable[[corpus.Concept, str], Pair]] = {
    "restyle": restyle_pair,
    "sketch-to-image": sketch_pair,
    "portrait": portrait_pair,
}


def train(task: str, npm_folder: Path, base: adapters.Base, folder: Path, *, minutes: float) -> PeftModel:
    """Pairs of the task's training concepts, mirrored half of the time."""
    concepts, _ = corpus.task_split(task, corpus.load_concepts(npm_folder))
    pairs = [PAIR[task](concept, style) for concept in concepts for style in STYLES[task]]
    source = autoencoder.encode_mirrored(base.vae, [pair.source for pair in pairs])
    target = autoencoder.encode_mirrored(base.vae, [pair.target for pair in pairs])
    states = [base.states(list(pair.captions)) for pair in pairs]
    empty = base.states([""])[0]
    model = adapters.attach(base.unet, task)

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        chosen, side = adapters.draw(task, len(pairs), generator)
        prompt = adapters.draw_prompts([states[i] for i in chosen.tolist()], empty, generator)
        z_source, z_target = source[side, chosen], target[side, chosen]
        start = torch.randint(*start_times(STRENGTH[task]), (len(chosen),), generator=generator)
        times = (torch.rand(len(chosen), generator=generator) * start).long() + 1
        a_start, s_start = noise.signal_and_noise(start)
        goal = torch.randn(z_target.shape, generator=generator) + a_start / s_start * (z_source - z_target)
        a, s = noise.signal_and_noise(times)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(a * z_target + s * goal, times, prompt).sample.float()
        return ((predicted - goal) ** 2 * noise.min_snr_weight(times)).mean()

    adapters.fit(model, task, loss_of_batch, folder, minutes)
    return model


def start_times(strength: float) -> tuple[int, int]:
    """The range that s is drawn from, as it differs with the number of steps: strength 0.7 starts at 601 of 10, at 681 of 50."""
    last = round(noise.TIMES * strength) + 1
    return last - 100, last
