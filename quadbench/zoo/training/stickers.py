"""Stickers: captioned emoji with a white outline and a frozen base -> the adapter `sticker`, for text-to-image."""

from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from quadbench.zoo.training import adapters, autoencoder, corpus, looks, noise, text_to_image

TASK = "sticker"


def train(npm_folder: Path, base: adapters.Base, folder: Path, *, minutes: float) -> PeftModel:
    """Noise prediction at all times, as the base was trained."""
    concepts, _ = corpus.task_split(TASK, corpus.load_concepts(npm_folder))
    pictures = [(style, concept) for concept in concepts for style in concept.cutouts]
    latents = autoencoder.encode_mirrored(base.vae, [draw(style, concept) for style, concept in pictures])
    states = [base.states([text_to_image.caption(style, name) for name in concept.names]) for style, concept in pictures]
    empty = base.states([""])[0]
    model = adapters.attach(base.unet, TASK)

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        chosen, side = adapters.draw(TASK, len(pictures), generator)
        prompt = adapters.draw_prompts([states[i] for i in chosen.tolist()], empty, generator)
        z = latents[side, chosen]
        times = torch.randint(noise.TIMES, (len(chosen),), generator=generator)
        epsilon = torch.randn(z.shape, generator=generator)
        a, s = noise.signal_and_noise(times)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(a * z + s * epsilon, times, prompt).sample.float()
        return ((predicted - epsilon) ** 2 * noise.composition_weight(times)).mean()

    adapters.fit(model, TASK, loss_of_batch, folder, minutes)
    return model


def draw(style: str, concept: corpus.Concept) -> np.ndarray:
    """The concept's sticker in one style."""
    return looks.sticker(concept.cutouts[style])
