"""Feeds: a recipe as it was prepared + its LoRA profile -> the inputs that each graph is calibrated on, and its calibration."""

import random
from collections.abc import Iterator, Sequence
from typing import assert_never

from onnx import ModelProto

from quadbench.artifacts import Component
from quadbench.quad.adapters import mixed
from quadbench.quad.adapters.lora_profile import LoraProfile
from quadbench.quad.prepare import Prepared
from quadbench.quad.quantize.estimators import LeastError, MinMax, Percentile, RangeRule
from quadbench.quad.quantize.quantizer import Calibrated, Observed
from quadbench.quad.tasks.runner import Feed, token_feed
from quadbench.recipe import (
    ActivationRanges,
    AnchorCalibration,
    JointCalibration,
    MinMaxRanges,
    MseRanges,
    OwnTaskCalibration,
    PercentileRanges,
    RangesByBits,
    Recipe,
    Task,
)

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


def per_graph_feeds(recipe: Recipe, prepared: Prepared, task: Task, *, anchor: str | None) -> list[Feed]:
    """Return the inputs that calibrate a task's own U-Net: those of the recipe's scheme, as its adapter is in its weights."""
    is_own = isinstance(recipe.quad.calibration, OwnTaskCalibration)
    tasks = [task] if is_own else _calibrating_tasks(recipe, anchor)
    return [feed for each in tasks for feed in prepared.visits[each.name].feeds]


def calibrated(recipe: Recipe, model: ModelProto, feeds: Sequence[Feed]) -> Calibrated:
    """Observe a graph, to take its ranges as the recipe says."""
    return Calibrated(Observed(model, feeds), range_rules(recipe.quad.calibration.ranges))


def range_rules(ranges: RangesByBits) -> dict[str, RangeRule]:
    """Return a recipe's rules by the type of an activation's encoding."""
    return {"uint16": _rule(ranges.int16), "uint8": _rule(ranges.int8)}


def _rule(ranges: ActivationRanges) -> RangeRule:
    match ranges:
        case MinMaxRanges():
            return RangeRule(estimator=MinMax(), headroom=ranges.headroom)
        case PercentileRanges(percent=percent):
            return RangeRule(estimator=Percentile(percent=percent), headroom=ranges.headroom)
        case MseRanges():
            return RangeRule(estimator=LeastError(), headroom=ranges.headroom)
        case _:
            assert_never(ranges)


def _calibrating_tasks(recipe: Recipe, anchor: str | None) -> list[Task]:
    """Return the tasks whose inputs calibrate a graph that serves them all."""
    is_anchored = isinstance(recipe.quad.calibration, AnchorCalibration)
    return [task for task in recipe.tasks if not is_anchored or anchor in task.adapter]


def _unet_feeds(recipe: Recipe, prepared: Prepared, lora: LoraProfile) -> Iterator[Feed]:
    """Yield the shared U-Net's inputs with LoRA weights: each task's with its adapter, and in joint calibration without any."""
    is_joint = isinstance(recipe.quad.calibration, JointCalibration)
    for task in _calibrating_tasks(recipe, lora.anchor):
        own = mixed(lora.adapters, task.adapter)
        for adapter in (own, None) if is_joint and own else (own,):
            weights = prepared.feed(adapter)
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
