"""Feeds: a recipe as it was prepared + its LoRA profile -> the inputs that each component is calibrated on."""

import random
from collections.abc import Iterator

from quadbench.artifacts import Component
from quadbench.quad.adapters.lora_profile import LoraProfile
from quadbench.quad.prepare import Prepared
from quadbench.quad.tasks.runner import Feed, token_feed
from quadbench.recipe import AnchorCalibration, Recipe

VOCABULARY_ROWS = 64  # at most so many rows of unlike tokens calibrate the text encoder


def calibration_feeds(recipe: Recipe, prepared: Prepared, lora: LoraProfile) -> dict[Component, list[Feed]]:
    """Return the calibration inputs of every component; none for the VAE's encoder if no task takes an image."""
    items = [item for task in prepared.tasks for item in task.items.calibration]
    latents = [latent for visit in prepared.visits.values() for latent in visit.latents]
    return {
        Component.TEXT_ENCODER: [token_feed(ids) for ids in _token_rows(prepared)],
        Component.VAE_ENCODER: [{"image": item.image.numpy()} for item in items if item.image is not None],
        Component.VAE_DECODER: [{"latent": latent.numpy()} for latent in latents],
        Component.UNET: list(_unet_feeds(recipe, prepared, lora)),
    }


def _unet_feeds(recipe: Recipe, prepared: Prepared, lora: LoraProfile) -> Iterator[Feed]:
    """Yield the U-Net's inputs with LoRA weights.

    Under joint calibration they are those of every task, with its adapter and again without any; under the anchor's only those
    of its own tasks.
    """
    is_joint = not isinstance(recipe.quad.calibration, AnchorCalibration)
    for task in recipe.tasks:
        adapters = [task.adapter] if is_joint or task.adapter == lora.anchor else []
        if is_joint and task.adapter is not None:
            adapters.append(None)
        for adapter in adapters:
            weights = prepared.feed(lora.adapters[adapter] if adapter else None)
            yield from (feed | weights for feed in prepared.visits[task.name].feeds)


def _token_rows(prepared: Prepared) -> list[tuple[int, ...]]:
    """Return calibration prompts, and the vocabulary in rows, so that no token of a later prompt is a surprise."""
    items = [item for task in prepared.tasks for item in task.items.calibration]
    prompts = [ids for item in items for ids in (item.input_ids, item.negative_input_ids)]
    length = len(prompts[0])
    begin, end = prompts[0][0], prepared.foundation.tokenize("")[1]
    vocabulary = list(range(len(prepared.foundation.tokenizer)))
    random.Random(0).shuffle(vocabulary)
    rows = [vocabulary[i : i + length - 2] for i in range(0, len(vocabulary), length - 2)][:VOCABULARY_ROWS]
    return prompts + [(begin, *row, *(end,) * (length - 1 - len(row))) for row in rows]
