"""Preparation: loading a recipe's models, running samplers, and calibrating float graphs. A cache shares results among builds."""

import logging
import random
import tempfile
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar, assert_never

from onnx import ModelProto

from quadbench.artifacts import LORA_PREFIX, Component
from quadbench.host import peak_memory_bytes, release_memory
from quadbench.quad.adapters.adapter import Adapter, graph_tensors, mix_adapters, own_tensors, random_adapter, shared_ranks
from quadbench.quad.adapters.loading import BaseSites, load_adapter, sites_of_unet
from quadbench.quad.adapters.lora_profile import LoraProfile
from quadbench.quad.cache import RecipeDigests, digests_of
from quadbench.quad.items import CalibrationRun, Encoders, PreparedTask, task_items
from quadbench.quad.model.float_graphs import specs
from quadbench.quad.model.foundation import Foundation, open_foundation
from quadbench.quad.model.lora_sites import with_merged, with_ranks
from quadbench.quad.model_files import adapter_source
from quadbench.quad.part_store import PartStore
from quadbench.quad.parts import BuildParts
from quadbench.quad.quantize.calibration import Estimator, RangeRule, Remember, anew, least_error, percentile
from quadbench.quad.quantize.quantizer import CalibratedGraph, ObservedGraph, QuantizedGraph, write_qdq, write_weight_only
from quadbench.quad.runner import Feed, GraphSession, as_feed, token_feed
from quadbench.recipe import Recipe, Task, settings
from quadbench.recipe.tasks import RandomAdapter

log = logging.getLogger(__name__)
Notify = Callable[[str], None]
_SITES = "quadbench.quad.model.lora_sites"  # the module that makes a recipe's U-Nets of the exported one
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
    parts: BuildParts
    keys: dict[Component, str]  # of `models`
    plain_key: str  # of the U-Net before it had the recipe's ranks

    def release(self) -> None:
        """Free the memory of the float graphs; their next run loads them again."""
        for session in (self.unet, self.encoders.text_encoder, self.encoders.vae_encoder):
            session.release()

    def feed(self, adapter: Adapter | None) -> Feed:
        """Return a dict from LoRA input name of the float U-Net to array: the adapter's weights, or zeros if there is none."""
        return as_feed(graph_tensors(adapter, self.shapes))

    def run(self, task: PreparedTask, adapter: Adapter | None) -> CalibrationRun:
        """Run a task's sampler with an adapter on the task's calibration inputs, or take the results from an earlier build."""
        return self.parts.run(task, self.encoders, self.unet, self.feed(adapter), self.keys)


def prepare(
    recipe: Recipe, steps: BuildSteps, scratch: Path, like: PreparedRecipe | None = None, parts: BuildParts | None = None
) -> PreparedRecipe:
    """Load a recipe's models and adapters, and run its tasks' samplers on their calibration inputs. Return a PreparedRecipe.

    `like` is the PreparedRecipe of a recipe that differs only in samplers and bits; its models and equal tasks are reused. Large
    weights are files in the folder `scratch` for as long as the result is used. `parts` are those of earlier builds, if any.
    """
    parts = parts or BuildParts(store=PartStore(scratch / "parts", scratch), foundation=digests_of(recipe).foundation)
    foundation = like.foundation if like else open_foundation(recipe.foundation)
    samples = recipe.quad.calibration.samples
    items = {task.name: task_items(task, foundation, calibration_samples=samples) for task in recipe.tasks}
    models = like or _load_models(recipe, foundation, steps, parts)
    encoders, unet = models.encoders, models.unet
    adapters = {task.name: mix_adapters(models.adapters, task.adapter) for task in recipe.tasks}
    there = {task.task.name: task for task in models.tasks if task.task in recipe.tasks}
    with steps("sampler tables"):
        new = [task for task in recipe.tasks if task.name not in there]
        tasks = there | {
            task.name: parts.task(task, items[task.name], encoders, unet, models.feed(adapters[task.name]), models.keys)
            for task in new
        }
    with steps("trajectories"):
        visits = {
            name: models.visits[name] if name in there else models.run(task, adapters[name]) for name, task in tasks.items()
        }
    names = [task.name for task in recipe.tasks]
    return replace(models, tasks=[tasks[name] for name in names], visits={name: visits[name] for name in names})


def _load_models(recipe: Recipe, foundation: Foundation, steps: BuildSteps, parts: BuildParts) -> PreparedRecipe:
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
    ranks = shared_ranks([*adapters.values(), *filter(None, mixes)])
    with steps("export"):
        models, keys = {}, {}
        for part in (Component.TEXT_ENCODER, Component.VAE_ENCODER, Component.VAE_DECODER, Component.UNET):
            if part is Component.UNET:
                foundation.release()
            models[part], keys[part] = parts.graph(foundation, part)
        foundation.release()
    plain_key, keys[Component.UNET] = keys[Component.UNET], parts.key(_SITES, keys[Component.UNET], ranks)
    unet = models[Component.UNET] = with_ranks(models[Component.UNET], ranks)
    return PreparedRecipe(
        foundation=foundation,
        adapters=adapters,
        models=models,
        shapes={spec.name: spec.shape for spec in specs(unet.graph.input) if spec.name.startswith(LORA_PREFIX)},
        encoders=Encoders(
            foundation=foundation,
            text_encoder=GraphSession(models[Component.TEXT_ENCODER]),
            vae_encoder=GraphSession(models[Component.VAE_ENCODER]),
        ),
        unet=GraphSession(unet),
        tasks=[],
        visits={},
        parts=parts,
        keys=keys,
        plain_key=plain_key,
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
    groups = calibration_groups(recipe, prepared, lora)
    return {component: [feed for group in own for feed in group] for component, own in groups.items()}


def calibration_groups(recipe: Recipe, prepared: PreparedRecipe, lora: LoraProfile) -> dict[Component, list[list[Feed]]]:
    """Return the calibration inputs as `calibration_feeds` does, in groups: those of a task, or of a task and an adapter."""
    items = [task.items.calibration for task in prepared.tasks]
    prompts = [[tokens for item in own for tokens in (item.tokens, item.negative_tokens) if tokens] for own in items]
    prompts.append(_vocabulary(prepared.foundation))
    unet_groups: list[list[Feed]] = []
    is_joint = isinstance(recipe.quad.calibration, settings.JointCalibration)
    for task in _calibrating_tasks(recipe, lora.anchor):
        own = mix_adapters(lora.adapters, task.adapter)
        for adapter in (own, None) if is_joint and own else (own,):
            weights = prepared.feed(adapter)
            unet_groups.append([feed | weights for feed in prepared.visits[task.name].feeds])
    return {
        Component.TEXT_ENCODER: [[token_feed(tokens) for tokens in group] for group in prompts],
        Component.VAE_ENCODER: [[{"image": item.image.numpy()} for item in own if item.image is not None] for own in items],
        Component.VAE_DECODER: [[{"latent": z.numpy()} for z in visit.latents] for visit in prepared.visits.values()],
        Component.UNET: unet_groups,
    }


def _vocabulary(foundation: Foundation) -> list[Mapping[str, tuple[int, ...]]]:
    """Return rows of tokens by input, so that ranges of text encoders cover the tokens of later prompts, not only of these."""
    columns = []
    empty = foundation.tokenize("")
    for encoder in foundation.family.encoders:
        length, (begin, end, *_) = len(empty[encoder.tokens]), empty[encoder.tokens]
        vocabulary = list(range(len(foundation.tokenizers[encoder.tokenizer])))
        random.Random(0).shuffle(vocabulary)
        rows = [vocabulary[i : i + length - 2] for i in range(0, len(vocabulary), length - 2)][:VOCABULARY_ROWS]
        tokens = [(begin, *row, *(end,) * (length - 1 - len(row))) for row in rows]
        columns.append([foundation.encoder_inputs(encoder, ids) for ids in tokens])
    return [dict(ChainMap(*row)) for row in zip(*columns, strict=True)]


def per_graph_feeds(recipe: Recipe, prepared: PreparedRecipe, task: Task, *, anchor: str | None) -> list[Feed]:
    """Return the calibration inputs of a task's merged U-Net: a list of dicts from input name to array, without LoRA inputs."""
    return [feed for group in _per_graph_groups(recipe, prepared, task, anchor=anchor) for feed in group]


def _per_graph_groups(recipe: Recipe, prepared: PreparedRecipe, task: Task, *, anchor: str | None) -> list[list[Feed]]:
    is_own = isinstance(recipe.quad.calibration, settings.OwnTaskCalibration)
    tasks = [task] if is_own else _calibrating_tasks(recipe, anchor)
    return [prepared.visits[each.name].feeds for each in tasks]


def calibrate(recipe: Recipe, model: ModelProto, *groups: Sequence[Feed], remember: Remember = anew) -> CalibratedGraph:
    """Observe the value ranges of a float graph over feeds. Return a CalibratedGraph that follows the recipe's range rules."""
    return CalibratedGraph(ObservedGraph(model, *groups, remember=remember), range_rules(recipe.quad.calibration.ranges))


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
        adapter = mix_adapters(prepared.adapters, task.adapter)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            model = merged_unet(prepared, adapter, Path(folder))
            match recipe.precision.activations:
                case settings.FloatActivations():
                    written = write_weight_only(model)
                case activations:
                    groups = _per_graph_groups(recipe, prepared, task, anchor=anchor)
                    key = prepared.parts.key(_SITES, prepared.plain_key, own_tensors(adapter) if adapter else None)
                    own = calibrate(recipe, model, *groups, remember=prepared.parts.remember(key))
                    written = write_qdq(own, int8_percent=activations.int8_percent)
            yield task.name, model, written


def merged_unet(prepared: PreparedRecipe, adapter: Adapter | None, folder: Path) -> ModelProto:
    """Return the float U-Net's ONNX graph without LoRA inputs. The adapter, unless it is None, is merged into the weights, of
    which large ones are written into the folder.
    """
    return with_merged(prepared.models[Component.UNET], own_tensors(adapter) if adapter else {}, folder)


class BuildCache:
    """A cache of unchanging models and graphs that several builds share. Folder `scratch` holds large weights. The folder `parts`
    keeps parts for later builds; if it is None, they are lost with `scratch`.
    """

    def __init__(self, scratch: Path, parts: Path | None = None) -> None:
        self.scratch, self.store = scratch, PartStore(parts or scratch / "parts", scratch)
        self._prepared: dict[str, PreparedRecipe] = {}
        self._by_models: dict[str, PreparedRecipe] = {}
        self._calibrated: dict[str, CalibratedGraph] = {}

    def prepared(self, digests: RecipeDigests, make: Callable[[PreparedRecipe | None], PreparedRecipe]) -> PreparedRecipe:
        """Return the cached PreparedRecipe, or else make it: `make` takes a PreparedRecipe with models to reuse, or None."""
        like = self._by_models.get(digests.models)
        prepared = _get_or_make(self._prepared, digests.floats, partial(make, like))
        self._by_models.setdefault(digests.models, prepared)
        return prepared

    def calibrated(self, digests: RecipeDigests, part: str, make: Callable[[], CalibratedGraph]) -> CalibratedGraph:
        """Return the CalibratedGraph of the graph named `part` from the cache. If it is not cached, call `make()` for it."""
        return _get_or_make(self._calibrated, f"{part} of {digests.ranges}", make)


def _get_or_make(kept: dict[str, ProductT], key: str, make: Callable[[], ProductT]) -> ProductT:
    if key not in kept:
        kept[key] = make()
    return kept[key]
