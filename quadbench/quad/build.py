"""Build: Recipe -> Bundle, or the one that the same inputs made before."""

import copy
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from onnx import ModelProto

from quadbench.artifacts import (
    SCHEMA_VERSION,
    Bundle,
    Component,
    FileRef,
    Graph,
    TaskAssets,
    TaskItem,
    TaskKind,
    Variant,
)
from quadbench.manifest import publish
from quadbench.quad.adapters import Adapter, base_of_unet, graph_tensors, load_adapter, merge, shared_ranks
from quadbench.quad.cache import bundle_folder
from quadbench.quad.encodings import Encoding
from quadbench.quad.foundation import Foundation, load_foundation
from quadbench.quad.graphs import export_component, export_unet, lora_shapes, quantized
from quadbench.quad.items import Items, task_items
from quadbench.quad.profile import aligned, clip_rate, lora_encodings, shared_ranges, site_fits
from quadbench.quad.reference import reference_for
from quadbench.quad.runner import Feed, GraphSession, as_feed, token_feed
from quadbench.quad.sensitivity import Sensitivity, sensitivity
from quadbench.quad.sources import adapter_source, bundle_digest, foundation_folder, tool_versions
from quadbench.quad.tasks import Encoders, PreparedTask, Visit, prepare_task, visit
from quadbench.quad.writer import BundleWriter
from quadbench.recipe import AnchorCalibration, AnchorProfile, Recipe, recipe_digest

log = logging.getLogger(__name__)
Notify = Callable[[str], None]
VOCABULARY_ROWS = 64  # at most so many rows of unlike tokens calibrate the text encoder
ACTIVATION_DTYPES = {"w8a16": "uint16", "w8a8": "uint8"}


def build(recipe: Recipe, bundles: Path, *, notify: Notify = lambda _step: None) -> tuple[Bundle, Path]:
    """Quantize a recipe's model and adapters into a folder below `bundles`, named by its digest. Returns it with its folder.

    `notify` is called with the name of each step as it starts. One that is there is not looked at: `cache.cached` finds it.

    Raises:
        UserError: something that the recipe names is missing or does not fit; AdapterError where it is an adapter.
        BuildError: the graph cannot be quantized.
    """
    digest = bundle_digest(recipe)
    folder = bundle_folder(digest, bundles)
    foundation, adapters = load_sources(recipe)
    samples = recipe.quad.calibration.samples
    items = {task.name: task_items(task, foundation, calibration_samples=samples) for task in recipe.tasks}

    def make(temporary: Path) -> Bundle:
        writer = BundleWriter(temporary)
        work = _Build(
            recipe=recipe, digest=digest, foundation=foundation, adapters=adapters, items=items, writer=writer, notify=notify
        )
        with torch.no_grad():
            return work.run()

    return publish(folder, make), folder


def load_sources(recipe: Recipe) -> tuple[Foundation, dict[str, Adapter]]:
    """Read the foundation model and every adapter, and check that they fit together."""
    foundation = load_foundation(foundation_folder(recipe.foundation))
    base = base_of_unet(foundation.unet)
    sources = {name: adapter_source(spec) for name, spec in recipe.adapters.items()}
    adapters = {name: load_adapter(name, of.path, base, expected=of.format) for name, of in sources.items()}
    return foundation, adapters


@dataclass(frozen=True, kw_only=True)
class _Lora:
    """The adapters as the shared graph takes them."""

    shapes: dict[str, tuple[int, ...]]
    encodings: dict[str, Encoding]
    adapters: dict[str, Adapter]  # gauge-aligned where the recipe says so
    anchor: str | None  # None: the ranges of all adapters together
    sensitivity: Sensitivity | None  # where it chose the anchor

    def feed(self, adapter: str | None) -> Feed:
        """An adapter's float graph inputs; None is no adapter."""
        return as_feed(graph_tensors(self.adapters[adapter] if adapter else None, self.shapes))

    def rows(self) -> list[dict[str, object]]:
        """How each adapter sits in the shared encodings, for profile.json."""
        return [
            {
                "adapter": name,
                "clip_rate": clip_rate(adapter, self.encodings),
                "sites": [_finite(asdict(fit)) for fit in site_fits(adapter, self.encodings)],
            }
            for name, adapter in self.adapters.items()
        ]


def _finite(row: dict[str, object]) -> dict[str, object]:
    """JSON has no infinity: an SQNR without noise is null."""
    return {key: None if value == math.inf else value for key, value in row.items()}


@dataclass(kw_only=True)
class _Build:
    recipe: Recipe
    digest: str
    foundation: Foundation
    adapters: dict[str, Adapter]
    items: dict[str, Items]
    writer: BundleWriter
    notify: Notify
    seconds: dict[str, float] = field(default_factory=dict)
    graphs: list[Graph] = field(default_factory=list)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.notify(name)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)
        log.info("build: %s, %.1f s", name, self.seconds[name])

    def run(self) -> Bundle:
        with self._step("export"):
            models = self._export()
            sessions = {component: GraphSession(model) for component, model in models.items()}
        with self._step("sampler tables"):
            shapes = lora_shapes(models[Component.UNET])
            encoders = Encoders(
                foundation=self.foundation,
                text_encoder=sessions[Component.TEXT_ENCODER],
                vae_encoder=sessions[Component.VAE_ENCODER],
            )
            unet = sessions[Component.UNET]
            feeds = {name: as_feed(graph_tensors(a, shapes)) for name, a in [(None, None), *self.adapters.items()]}
            tasks = [prepare_task(task, self.items[task.name], encoders, unet, feeds[task.adapter]) for task in self.recipe.tasks]
        with self._step("trajectories"):
            visits = {task.task.name: visit(task, encoders, unet, feeds[task.task.adapter]) for task in tasks}
        with self._step("lora profile"):
            lora = self._profile(shapes, self._sensitivity(tasks, visits, encoders, unet, shapes))
        with self._step("quantize"):
            profile = self._quantize(models, tasks, visits, lora)
        with self._step("adapters"):
            files = [self.writer.adapter(adapter, lora.shapes, lora.encodings) for adapter in lora.adapters.values()]
        with self._step("per-graph baselines"):
            self._baselines(visits)
        with self._step("reference images"):
            assets = tuple(self._assets(task) for task in tasks)
        return Bundle(
            digest=self.digest,
            recipe_name=self.recipe.name,
            recipe_digest=recipe_digest(self.recipe),
            precision=self.recipe.precision.activations.scheme,
            tool_versions=tool_versions(),
            graphs=tuple(self.graphs),
            adapters=tuple(file for pair in files for file in pair),
            tasks=assets,
            profile=profile,
            build_seconds=self.seconds,
        )

    def _export(self) -> dict[Component, ModelProto]:
        parts = (Component.TEXT_ENCODER, Component.VAE_ENCODER, Component.VAE_DECODER)
        models = {part: export_component(self.foundation, part) for part in parts}
        models[Component.UNET] = export_unet(self.foundation, self.foundation.unet, shared_ranks(self.adapters.values()))
        self.graphs += [self.writer.graph(model, Variant.FLOAT, part) for part, model in models.items()]
        return models

    def _sensitivity(
        self,
        tasks: list[PreparedTask],
        visits: dict[str, Visit],
        encoders: Encoders,
        unet: GraphSession,
        shapes: dict[str, tuple[int, ...]],
    ) -> Sensitivity | None:
        """Where the recipe leaves the anchor open: what chooses it, without the pass over single sites."""
        profile = self.recipe.quad.profile
        if not isinstance(profile, AnchorProfile) or profile.adapter is not None:
            return None
        found = sensitivity(
            self.adapters.values(),
            tasks,
            visits,
            encoders,
            unet=unet,
            shapes=shapes,
            dtype=self.recipe.precision.lora,
            site_samples=0,
        )
        log.info("build: %s (%s)", f"anchor '{a}'" if (a := found.choice.anchor) else "unified ranges", found.choice.reason)
        return found

    def _profile(self, shapes: dict[str, tuple[int, ...]], found: Sensitivity | None) -> _Lora:
        """The shared LoRA ranges; with gauge, every adapter is aligned to them and the ranges are taken again, as they shrink."""
        quad, adapters = self.recipe.quad, list(self.adapters.values())
        named = quad.profile.adapter if isinstance(quad.profile, AnchorProfile) else None
        anchor = found.choice.anchor if found else named
        ranges = shared_ranges(adapters, anchor=anchor)
        if quad.profile.gauge:
            adapters = [aligned(adapter, ranges) for adapter in adapters]
            ranges = shared_ranges(adapters, anchor=anchor)
        encodings = lora_encodings(ranges, headroom=quad.profile.headroom, dtype=self.recipe.precision.lora)
        by_name = {adapter.name: adapter for adapter in adapters}
        return _Lora(shapes=shapes, encodings=encodings, adapters=by_name, anchor=anchor, sensitivity=found)

    def _quantize(
        self, models: dict[Component, ModelProto], tasks: list[PreparedTask], visits: dict[str, Visit], lora: _Lora
    ) -> FileRef:
        """Write the shared graphs and the profile with all of their encodings."""
        feeds = {
            Component.TEXT_ENCODER: [token_feed(ids) for ids in self._token_rows(tasks)],
            Component.VAE_ENCODER: [
                {"image": item.image.numpy()} for t in tasks for item in t.items.calibration if item.image is not None
            ],
            Component.VAE_DECODER: [{"latent": latent.numpy()} for v in visits.values() for latent in v.latents],
            Component.UNET: list(self._unet_feeds(visits, lora)),
        }
        encodings: dict[str, dict[str, Encoding]] = {"lora": lora.encodings}
        for component, model in models.items():
            if not feeds[component]:
                continue  # no task takes an image
            is_unet = component is Component.UNET
            made = quantized(
                model,
                feeds[component],
                activations=ACTIVATION_DTYPES[self.recipe.precision.activations.scheme] if is_unet else "uint16",
                lora=lora.encodings if is_unet else None,
            )
            encodings[component.value] = made.activations
            self.graphs.append(self.writer.graph(made.model, Variant.SHARED, component, lora=lora.encodings if is_unet else None))
        listed = {part: {name: asdict(encoding) for name, encoding in of.items()} for part, of in encodings.items()}
        profile = {
            "schema_version": SCHEMA_VERSION,
            "anchor": lora.anchor,
            "chosen_by": "sensitivity" if lora.sensitivity else "recipe",
            "sensitivity": asdict(lora.sensitivity) if lora.sensitivity else None,
            "adapters": lora.rows(),
            "encodings": listed,
        }
        return self.writer.json("profile.json", profile)

    def _unet_feeds(self, visits: dict[str, Visit], lora: _Lora) -> Iterator[Feed]:
        """joint: every task's inputs under its adapter, and again without any; anchor: those of the profile's adapter alone."""
        is_joint = not isinstance(self.recipe.quad.calibration, AnchorCalibration)
        for task in self.recipe.tasks:
            if is_joint or task.adapter == lora.anchor:
                yield from (feed | lora.feed(task.adapter) for feed in visits[task.name].feeds)
            if is_joint and task.adapter is not None:
                yield from (feed | lora.feed(None) for feed in visits[task.name].feeds)

    def _token_rows(self, tasks: list[PreparedTask]) -> list[tuple[int, ...]]:
        """Calibration prompts, and the vocabulary in rows, so that no token of a later prompt is a surprise."""
        prompts = [ids for task in tasks for item in task.items.calibration for ids in (item.input_ids, item.negative_input_ids)]
        length = len(prompts[0])
        begin, end = prompts[0][0], self.foundation.tokenize("")[1]
        vocabulary = list(range(len(self.foundation.tokenizer)))
        random.Random(0).shuffle(vocabulary)
        rows = [vocabulary[i : i + length - 2] for i in range(0, len(vocabulary), length - 2)][:VOCABULARY_ROWS]
        return prompts + [(begin, *row, *(end,) * (length - 1 - len(row))) for row in rows]

    def _baselines(self, visits: dict[str, Visit]) -> None:
        """For each task a U-Net of its own: adapter merged, calibrated on that task alone."""
        for task in self.recipe.tasks if "per-graph" in self.recipe.baselines else ():
            unet = copy.deepcopy(self.foundation.unet)
            if task.adapter is not None:
                merge(self.adapters[task.adapter], unet)
            dtype = ACTIVATION_DTYPES[self.recipe.precision.activations.scheme]
            made = quantized(export_unet(self.foundation, unet, {}), visits[task.name].feeds, activations=dtype)
            self.graphs.append(self.writer.graph(made.model, Variant.PER_GRAPH, Component.UNET, task=task.name))

    def _assets(self, prepared: PreparedTask) -> TaskAssets:
        task, name = prepared.task, prepared.task.name
        adapter = adapter_source(self.recipe.adapters[task.adapter]) if task.adapter else None
        reference = reference_for(self.foundation, task, prepared.table, adapter)
        items = tuple(
            TaskItem(
                name=item.name,
                image=self.writer.copy(f"inputs/{name}/{item.name}.png", item.image_path),
                mask=self.writer.copy(f"inputs/{name}/{item.name}.mask.png", item.mask_path),
                truth=self.writer.copy(f"inputs/{name}/{item.name}.truth.png", item.truth_path),
                reference=self.writer.image(f"reference/{name}/{item.name}.png", reference.render(item)),
                prompt=item.prompt,
                input_ids=item.input_ids,
                negative_input_ids=item.negative_input_ids,
            )
            for item in prepared.items.evaluation
        )
        return TaskAssets(
            name=name,
            kind=TaskKind(task.kind),
            adapter=task.adapter,
            scheme=task.sampler.scheme,
            steps=len(prepared.table.steps),
            guidance=task.guidance,
            table=self.writer.json(f"tasks/{name}.json", {"schema_version": SCHEMA_VERSION, **asdict(prepared.table)}),
            tensors=self.writer.tensors(f"tasks/{name}.safetensors", as_feed(prepared.tensors(self.foundation))),
            items=items,
            fit_error=prepared.table.fit_error,
        )
