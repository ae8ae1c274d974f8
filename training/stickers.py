"""Stickers: captioned emoji with a white outline and a frozen base -> the adapter `sticker`, for text-to-image."""

from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from training import adapters, autoencoder, captions, corpus, looks, loop, noise

TASK = "sticker"


def train(npm_folder: Path, base: adapters.FrozenBase, workbench: loop.Workbench) -> PeftModel:
    """Noise prediction at all times, as the base was trained."""
    concepts, _ = corpus.task_split(TASK, corpus.load_concepts(npm_folder))
    pairs = [(style, concept) for concept in workbench.few(concepts) for style in concept.cutouts]
    latents = autoencoder.encode_mirrored(base.vae, [draw(style, concept) for style, concept in pairs])
    prompts = base.prompts([captions.of_concept(concept, style) for style, concept in pairs])
    model = adapters.attach(base.unet, TASK)

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        chosen, side = adapters.draw(TASK, len(pairs), generator)
        states = prompts.draw(chosen, generator)
        z = latents[side, chosen]
        times = noise.spread_times(len(chosen), generator)
        epsilon = torch.randn(z.shape, generator=generator)
        x = noise.noised(z, epsilon, times).to(loop.device())
        with loop.reduced():
            predicted = model(x, times.to(loop.device()), states).sample.float()
        return ((predicted - epsilon.to(loop.device())) ** 2 * noise.weight(times).to(loop.device())).mean()

    adapters.fit(model, TASK, loss_of_batch, workbench)
    return model


def draw(style: str, concept: corpus.Concept) -> np.ndarray:
    """The concept's sticker in one style."""
    return looks.sticker(concept.cutouts[style])
