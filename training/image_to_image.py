"""Image to image: pairs of pictures and a frozen base -> the adapters `restyle`, `sketch-to-image` and `portrait`.

All three are for a deterministic sampler and are trained on the very path that it walks. Image-to-image starts at
x_s = sqrt(a_s) z_src + sqrt(1 - a_s) eps. With c0 = sqrt(a_s / (1 - a_s)) and E = eps + c0 (z_src - z_tgt) the same x_s is
sqrt(a_s) z_tgt + sqrt(1 - a_s) E: noise that carries what is left of the source. A DDIM step with a U-Net that answers E moves
x_t along sqrt(a_t) z_tgt + sqrt(1 - a_t) E and keeps E, down to z_tgt. So the input is that x_t for t in (0, s] and the target
is E.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from training import adapters, autoencoder, captions, corpus, looks, loop, noise

# The more of the noise schedule is run, the more is invented and the less is kept.
STRENGTH = {"restyle": 0.25, "sketch-to-image": 0.35, "portrait": 0.4}
# How many variations of each emoji are learned from besides it, so that what the base has never seen looks less strange. A
# drawing is to get the colour that is usual for what it shows, so those of `sketch-to-image` keep theirs.
VARIATIONS = {"restyle": 3, "sketch-to-image": 2, "portrait": 0}
RECOLOURED = {"restyle"}
STYLES = {"restyle": ("noto",), "sketch-to-image": ("twemoji", "noto"), "portrait": ("twemoji", "noto")}


@dataclass(frozen=True, kw_only=True)
class TrainingPair:
    """Two uint8 pictures (64, 64, 3) and what the second may be called."""

    source: np.ndarray
    target: np.ndarray
    wording: captions.Wording


def restyle_pair(concept: corpus.Concept, style: str) -> TrainingPair:
    """Twemoji to another style. The prompt is that style alone: a name that the base never saw leads away from the picture."""
    return TrainingPair(source=concept.image("twemoji"), target=concept.image(style), wording=captions.plain([style]))


def sketch_pair(concept: corpus.Concept, style: str) -> TrainingPair:
    """Line drawing to picture. The prompts name the colour, which a drawing does not show."""
    cutout = concept.cutouts[style]
    colour = looks.colour_word(cutout)
    prompts = captions.plain(captions.coloured(style, colour, name) for name in concept.names)
    return TrainingPair(source=looks.sketch(cutout), target=concept.image(style), wording=prompts)


def portrait_pair(concept: corpus.Concept, style: str) -> TrainingPair:
    """Face to cyanotype."""
    return TrainingPair(
        source=concept.image(style),
        target=looks.cyanotype(concept.cutouts[style]),
        wording=captions.of_concept(concept, style),
    )


def source_style(task: str, style: str) -> str:
    """Return the style whose picture the source is made from."""
    return "twemoji" if task == "restyle" else style


PAIR: dict[str, Callable[[corpus.Concept, str], TrainingPair]] = {
    "restyle": restyle_pair,
    "sketch-to-image": sketch_pair,
    "portrait": portrait_pair,
}


def train(task: str, npm_folder: Path, base: adapters.FrozenBase, workbench: loop.Workbench) -> PeftModel:
    """Pairs of the task's training concepts, mirrored half of the time."""
    concepts, _ = corpus.task_split(task, corpus.load_concepts(npm_folder))
    pairs = training_pairs(task, workbench.few(concepts))
    source = autoencoder.encode_mirrored(base.vae, [pair.source for pair in pairs])
    target = autoencoder.encode_mirrored(base.vae, [pair.target for pair in pairs])
    prompts = base.prompts([pair.wording for pair in pairs])
    model = adapters.attach(base.unet, task)

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        chosen, side = adapters.draw(task, len(pairs), generator)
        states = prompts.draw(chosen, generator)
        z_source, z_target = source[side, chosen], target[side, chosen]
        start = torch.randint(*start_times(STRENGTH[task]), (len(chosen),), generator=generator)
        times = (torch.rand(len(chosen), generator=generator) * start).long() + 1
        a_start, s_start = noise.signal_and_noise(start)
        goal = torch.randn(z_target.shape, generator=generator) + a_start / s_start * (z_source - z_target)
        x = noise.noised(z_target, goal, times).to(loop.device())
        with loop.reduced():
            predicted = model(x, times.to(loop.device()), states).sample.float()
        return ((predicted - goal.to(loop.device())) ** 2 * noise.weight(times).to(loop.device())).mean()

    adapters.fit(model, task, loss_of_batch, workbench)
    return model


def training_pairs(task: str, concepts: list[corpus.Concept]) -> list[TrainingPair]:
    """The pairs of all concepts and of their variations; an emoji whose names say a colour has no recoloured ones."""
    rng, is_recoloured = random.Random(adapters.PLANS[task].seed), task in RECOLOURED
    several = list(concepts)
    for concept in concepts:
        if not (is_recoloured and looks.COLOURS.keys() & set(" ".join(concept.names).split())):
            drawn = (looks.varied(concept.cutouts, rng, is_recoloured=is_recoloured) for _ in range(VARIATIONS[task]))
            several += [replace(concept, cutouts=cutouts) for cutouts in drawn]
    return [PAIR[task](concept, style) for concept in several for style in STYLES[task]]


def start_times(strength: float) -> tuple[int, int]:
    """The range that s is drawn from, as it differs with the number of steps: strength 0.7 starts at 601 of 10, at 681 of 50."""
    last = round(noise.TIMES * strength) + 1
    return last - 100, last
