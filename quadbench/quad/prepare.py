"""Preparation: loading a recipe's models, running samplers, and calibrating float graphs. A cache shares results among builds."""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar, assert_never

from onnx import ModelProto
from PIL.Image import Image

from quadbench.artifacts import LORA_PREFIX, Component
from quadbench.host import peak_memory_bytes, release_memory
from quadbench.quad.adapters.adapter import Adapter, graph_tensors, merge, mix_adapters, random_adapter, shared_ranks
from quadbench.quad.adapters.loading import BaseSites, load_adapter, sites_of_unet
from quadbench.quad.adapters.lora_profile import LoraProfile
from quadbench.quad.cache import RecipeDigests
from quadbench.quad.items import CalibrationRun, Encoders, PreparedTask, prepare_task, run_calibration, task_items
from quadbench.quad.model.float_graphs import copy_of_modules, export_graphs, export_unet, specs
from quadbench.quad.model.foundation import Foundation, open_foundation
from quadbench.quad.model.initializers import discard
from quadbench.quad.model_files import adapter_source
from quadbench.quad.quantize.calibration import Estimator, RangeRule, least_error, percentile
from quadbench.quad.quantize.quantizer import CalibratedGraph, ObservedGraph, QuantizedGraph, write_qdq, write_weight_only
from quadbench.quad.runner import Feed, GraphSession, as_feed, token_feed
from quadbench.recipe import Recipe, Task, settings
from quadbench.recipe.tasks import RandomAdapter

log = logging.getLogger(__name__)
Notify = Callable[[str], None]
VOCABULARY_ROWS = 64  # the most rows of distinct tokens that calibrate the text encoder
ProductT = TypeVar("ProductT")


def ignore_step(_step: str) -> None:
    """Ignore progress notifications."""


class BuildSteps:
    """A timer of build steps: `notify` is called with a step's name when it starts; `seconds` maps ended steps to durations."""

    def __init__(self, notify: Notify = ignore_step) -> None:
        self.notify = notify
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.notify(name)
        started = time.monotonic()
        yield
        release_memory()
        self.seconds[name] = round(time.monotonic() - started, 3)
        log.info("%s: %.1f s, peak memory so far %.2f GB", name, self.seconds[name], peak_memory_bytes() / 1e9)


@dataclass(frozen=True, kw_only=True)
class PreparedRecipe:
    """A recipe's float models, adapters and tasks. `visits` maps task name to the CalibrationRun of its sampler."""

    foundation: Foundation
    adapters: dict[str, Adapter]  # each at its greatest weight (by magnitude) in any task
    models: dict[Component, ModelProto]
    shapes: dict[str, tuple[int, ...]]  # shapes of the U-Net's LoRA inputs
    encoders: Encoders
    unet: GraphSession
    tasks: list[PreparedTask]
    visits: dict[str, CalibrationRun]  # by task

    def release(self) -> None:
        """Free the memory of the float graphs; their next run loads them again."""
        for session in (self.unet, self.encoders.text_encoder, self.encoders.vae_encoder):
            session.release()

    def feed(self, adapter: Adapter | None) -> Feed:
        """Return a dict from LoRA input name of the float U-Net to array: the adapter's weights, or zeros if there is none."""
        return as_feed(graph_tensors(adapter, self.shapes))


def prepare(recipe: Recipe, steps: BuildSteps, scratch: Path, like: PreparedRecipe | None = None) -> PreparedRecipe:
    """Load a recipe's models and adapters, and run its tasks' samplers on their calibration inputs. Return a PreparedRecipe.

    `like` is the PreparedRecipe of a recipe that differs only in samplers and bits; its models and equal tasks are reused. Large
    weights are files in the folder `scratch` for as long as the result is used.
    """
    foundation = like.foundation if like else open_foundation(recipe.foundation)
    samples = recipe.quad.calibration.samples
    items = {task.name: task_items(task, foundation, calibration_samples=samples) for task in recipe.tasks}
    models = like or _load_models(recipe, foundation, steps, scratch)
    encoders, unet = models.encoders, models.unet
    feeds = {task.name: models.feed(mix_adapters(models.adapters, task.adapter)) for task in recipe.tasks}
    there = {task.task.name: task for task in models.tasks if task.task in recipe.tasks}
    with steps("sampler tables"):
        new = (task for task in recipe.tasks if task.name not in there)
        tasks = there | {task.name: prepare_task(task, items[task.name], encoders, unet, feeds[task.name]) for task in new}
    with steps("trajectories"):
        visits = {
            name: models.visits[name] if name in there else run_calibration(task, encoders, unet, feeds[name])
            for name, task in tasks.items()
        }
    names = [task.name for task in recipe.tasks]
    return replace(models, tasks=[tasks[name] for name in names], visits={name: visits[name] for name in names})


def _load_models(recipe: Recipe, foundation: Foundation, steps: BuildSteps, scratch: Path) -> PreparedRecipe:
    """Load a recipe's models and adapters; export float ONNX graphs. Return a PreparedRecipe that has no prepared tasks yet."""
    base = sites_of_unet(foundation.skeleton)
    adapters = {}
    for name, spec in recipe.adapters.items():
        if isinstance(spec, RandomAdapter):
            adapter = random_adapter(name, foundation.skeleton, rank=spec.rank, kinds=spec.sites, seed=spec.seed)
        else:
            source = adapter_source(spec)
            assert source is not None
            adapter = load_adapter(name, source.path, base, expected=source.format, unet_only=source.unet_only)
            if adapter.left_out:
                log.warning("adapter '%s': %s", name, adapter.left_out)
        adapters[name] = adapter.at_weight(greatest_weight(recipe, name))
    mixes = [mix_adapters(adapters, task.adapter) for task in recipe.tasks]
    with steps("export"):
        models = export_graphs(foundation, shared_ranks([*adapters.values(), *filter(None, mixes)]), scratch)
        encoders = Encoders(
            foundation=foundation,
            text_encoder=GraphSession(models[Component.TEXT_ENCODER]),
            vae_encoder=GraphSession(models[Component.VAE_ENCODER]),
        )
        unet = GraphSession(models[Component.UNET])
    return PreparedRecipe(
        foundation=foundation,
        adapters=adapters,
        models=models,
        shapes={spec.name: spec.shape for spec in specs(models[Component.UNET].graph.input) if spec.name.startswith(LORA_PREFIX)},
        encoders=encoders,
        unet=unet,
        tasks=[],
        visits={},
    )


def sites_of(recipe: Recipe) -> BaseSites:
    """Return BaseSites: the layers of a recipe's U-Net that can take a LoRA, namely every Linear and ungrouped Conv2d."""
    return sites_of_unet(open_foundation(recipe.foundation).skeleton)


def greatest_weight(recipe: Recipe, adapter: str) -> float:
    """Return the greatest weight (by magnitude) with which any task uses an adapter; 1 if no task uses it."""
    return max((task.adapter.get(adapter, 0.0) for task in recipe.tasks), key=abs, default=0.0) or 1.0


def calibration_feeds(recipe: Recipe, prepared: PreparedRecipe, lora: LoraProfile) -> dict[Component, list[Feed]]:
    """Return a dict from Component, like U-Net or VAE encoder, to calibration inputs: a list of dicts from input name to array.
    U-Net inputs hold LoRA weights; joint calibration adds copies with zeros. The VAE encoder's list is empty without image tasks.
    """
    items = [item for task in prepared.tasks for item in task.items.calibration]
    latents = [latent for visit in prepared.visits.values() for latent in visit.latents]
    prompts = [ids for item in items for ids in (item.input_ids, item.negative_input_ids)]
    # Rows of the whole vocabulary, so that ranges cover the tokens of later prompts.
    length = len(prompts[0])
    begin, end = prompts[0][0], prepared.foundation.tokenize("")[1]
    vocabulary = list(range(len(prepared.foundation.tokenizer)))
    random.Random(0).shuffle(vocabulary)
    rows = [vocabulary[i : i + length - 2] for i in range(0, len(vocabulary), length - 2)][:VOCABULARY_ROWS]
    prompts += [(begin, *row, *(end,) * (length - 1 - len(row))) for row in rows]
    unet_feeds: list[Feed] = []
    is_joint = isinstance(recipe.quad.calibration, settings.JointCalibration)
    for task in _calibrating_tasks(recipe, lora.anchor):
        own = mix_adapters(lora.adapters, task.adapter)
        for adapter in (own, None) if is_joint and own else (own,):
            weights = prepared.feed(adapter)
            unet_feeds += [feed | weights for feed in prepared.visits[task.name].feeds]
    return {
        Component.TEXT_ENCODER: [token_feed(ids) for ids in prompts],
        Component.VAE_ENCODER: [{"image": item.image.numpy()} for item in items if item.image is not None],
        Component.VAE_DECODER: [{"latent": latent.numpy()} for latent in latents],
        Component.UNET: unet_feeds,
    }


def per_graph_feeds(recipe: Recipe, prepared: PreparedRecipe, task: Task, *, anchor: str | None) -> list[Feed]:
    """Return the calibration inputs of a task's merged U-Net: a list of dicts from input name to array, without LoRA inputs."""
    is_own = isinstance(recipe.quad.calibration, settings.OwnTaskCalibration)
    tasks = [task] if is_own else _calibrating_tasks(recipe, anchor)
    return [feed for each in tasks for feed in prepared.visits[each.name].feeds]


def calibrate(recipe: Recipe, model: ModelProto, feeds: Sequence[Feed]) -> CalibratedGraph:
    """Observe the value ranges of a float graph over `feeds`. Return a CalibratedGraph that follows the recipe's range rules."""
    return CalibratedGraph(ObservedGraph(model, feeds), range_rules(recipe.quad.calibration.ranges))


def range_rules(ranges: settings.RangesByBits) -> dict[str, RangeRule]:
    """Return a dict from activation dtype (`uint16` or `uint8`) to the recipe's rule for quantization ranges."""
    by_type = {"uint16": ranges.int16, "uint8": ranges.int8}
    return {dtype: RangeRule(estimator=_estimator(own), headroom=own.headroom) for dtype, own in by_type.items()}


def _estimator(ranges: settings.ActivationRanges) -> Estimator | None:
    match ranges:
        case settings.MinMaxRanges():
            return None
        case settings.PercentileRanges(percent=percent):
            return partial(percentile, percent=percent)
        case settings.MseRanges():
            return least_error
        case _:
            assert_never(ranges)


def _calibrating_tasks(recipe: Recipe, anchor: str | None) -> list[Task]:
    """Return the recipe's tasks whose inputs calibrate a U-Net. AnchorCalibration keeps only tasks that use adapter `anchor`."""
    is_anchored = isinstance(recipe.quad.calibration, settings.AnchorCalibration)
    return [task for task in recipe.tasks if not is_anchored or anchor in task.adapter]


def per_graph_unets(
    recipe: Recipe, prepared: PreparedRecipe, scratch: Path, *, anchor: str | None
) -> Iterator[tuple[str, ModelProto, QuantizedGraph]]:
    """Yield `(task name, float U-Net with the adapter merged in, quantized U-Net)` for each task. Large weights are files in the
    folder `scratch`, and are deleted when the next U-Net is requested.
    """
    for task in recipe.tasks:
        model = merged_unet(prepared.foundation, mix_adapters(prepared.adapters, task.adapter), scratch)
        match recipe.precision.activations:
            case settings.FloatActivations():
                written = write_weight_only(model)
            case activations:
                own = calibrate(recipe, model, per_graph_feeds(recipe, prepared, task, anchor=anchor))
                written = write_qdq(own, int8_percent=activations.int8_percent)
        yield task.name, model, written
        discard(model)


def merged_unet(foundation: Foundation, adapter: Adapter | None, scratch: Path) -> ModelProto:
    """Return the float U-Net's ONNX graph without LoRA inputs. The adapter, unless it is None, is merged into the weights."""
    unet = copy_of_modules(foundation.unet)
    if adapter is not None:
        merge(adapter, unet)
    model = export_unet(foundation, unet, {}, scratch)
    foundation.release()
    return model


class BuildCache:
    """A cache of unchanging models, graphs and images that several builds share. Folder `scratch` holds large weights."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._prepared: dict[str, PreparedRecipe] = {}
        self._by_models: dict[str, PreparedRecipe] = {}
        self._calibrated: dict[str, CalibratedGraph] = {}
        self._pictures: dict[str, Mapping[str, Image]] = {}

    def prepared(self, digests: RecipeDigests, make: Callable[[PreparedRecipe | None], PreparedRecipe]) -> PreparedRecipe:
        """Return the cached PreparedRecipe, or else make it: `make` takes a PreparedRecipe with models to reuse, or None."""
        like = self._by_models.get(digests.models)
        prepared = _get_or_make(self._prepared, digests.floats, partial(make, like))
        self._by_models.setdefault(digests.models, prepared)
        return prepared

    def calibrated(self, digests: RecipeDigests, part: str, make: Callable[[], CalibratedGraph]) -> CalibratedGraph:
        """Return the CalibratedGraph of the graph named `part` from the cache. If it is not cached, call `make()` for it."""
        return _get_or_make(self._calibrated, f"{part} of {digests.ranges}", make)

    def pictures(self, digests: RecipeDigests, task: Task, make: Callable[[], Mapping[str, Image]]) -> Mapping[str, Image]:
        """Return a task's reference images as a dict from input name to image. Call `make()` for the dict if it is not cached."""
        return _get_or_make(self._pictures, f"{task.model_dump_json()} of {digests.models}", make)


def _get_or_make(kept: dict[str, ProductT], key: str, make: Callable[[], ProductT]) -> ProductT:
    if key not in kept:
        kept[key] = make()
    return kept[key]
