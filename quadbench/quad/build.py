"""Build: Recipe -> Bundle, or the one that the same inputs made before."""

import logging
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from onnx import ModelProto
from PIL.Image import Image

from quadbench.artifacts import (
    SCHEMA_VERSION,
    BaseDigests,
    Bundle,
    Caveat,
    Component,
    FileRef,
    Graph,
    Stored,
    TaskAssets,
    TaskItem,
    TaskKind,
    Variant,
)
from quadbench.host import give_back
from quadbench.quad.adapters import Adapter, merge
from quadbench.quad.adapters.lora_profile import LoraProfile, clip_rate, lora_profile, site_fits
from quadbench.quad.distill import Distilled, Settings, distill_adapters
from quadbench.quad.intermediates import Intermediates
from quadbench.quad.model.components import copy_of_modules
from quadbench.quad.model.graphs import export_unet
from quadbench.quad.model.initializers import discard
from quadbench.quad.prepare import Prepared
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.mixed import EncodingNoise
from quadbench.quad.quantize.quantizer import Calibrated, quantized
from quadbench.quad.sensitivity import Sensitivity, sensitivity
from quadbench.quad.sources import adapter_source, bundle_digest, has_random_weights, tool_versions
from quadbench.quad.steps import Notify, Steps, silent
from quadbench.quad.tasks.prepared import PreparedTask
from quadbench.quad.tasks.reference import reference_for
from quadbench.quad.tasks.runner import Feed, as_feed, token_feed
from quadbench.quad.writer import BundleWriter
from quadbench.recipe import AnchorCalibration, AnchorProfile, Recipe, recipe_digest
from quadbench.results.digests import digest_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import publish, temporary_folder

log = logging.getLogger(__name__)
VOCABULARY_ROWS = 64  # at most so many rows of unlike tokens calibrate the text encoder


def build(
    recipe: Recipe, layout: Layout, *, notify: Notify = silent, intermediates: Intermediates | None = None
) -> Stored[Bundle]:
    """Quantize a recipe's model and adapters into a bundle, whose folder is named by its digest.

    `notify` is called with the name of each step as it starts. One that is there is not looked at: `cache.cached` finds it.
    Builds that are given the same `intermediates` make what they share once; `build_seconds` lacks the steps of an earlier one.

    Raises:
        UserError: something that the recipe names is missing or does not fit; AdapterError where it is an adapter.
        BuildError: the graph cannot be quantized.
    """
    if intermediates is None:
        with temporary_folder(layout.scratch) as scratch:
            bundle = build(recipe, layout, notify=notify, intermediates=Intermediates(scratch))
        give_back()  # whoever compiles next may need it
        return bundle
    digest, steps = bundle_digest(recipe), Steps(notify)
    with torch.no_grad():
        prepared = intermediates.prepared(recipe, steps)

        def make(temporary: Path) -> Bundle:
            return _Build(
                recipe=recipe,
                digest=digest,
                intermediates=intermediates,
                prepared=prepared,
                writer=BundleWriter(temporary),
                steps=steps,
                checkpoints=layout.checkpoints,
            ).run()

        return publish(layout.bundle(digest), make)


def _fit_rows(lora: LoraProfile) -> list[dict[str, object]]:
    """How each adapter sits in the shared encodings, for profile.json."""
    return [
        {
            "adapter": name,
            "clip_rate": clip_rate(adapter, lora.encodings),
            "sites": [_finite(asdict(fit)) for fit in site_fits(adapter, lora.encodings)],
        }
        for name, adapter in lora.adapters.items()
    ]


def _distillation_row(name: str, made: Distilled) -> dict[str, object]:
    """What training brought an adapter, for profile.json."""
    evaluations = [asdict(evaluation) for evaluation in made.evaluations]
    return {"adapter": name, "before_db": made.before_db, "after_db": made.after_db, "evaluations": evaluations}


def _listed(encodings: Mapping[str, Mapping[str, Encoding]]) -> dict[str, dict[str, dict[str, object]]]:
    return {part: {name: asdict(encoding) for name, encoding in of.items()} for part, of in encodings.items()}


def _finite(row: dict[str, object]) -> dict[str, object]:
    """JSON has no infinity: an SQNR without noise is null."""
    return {key: None if value == math.inf else value for key, value in row.items()}


@dataclass(kw_only=True)
class _Build:
    recipe: Recipe
    digest: str
    intermediates: Intermediates
    prepared: Prepared
    writer: BundleWriter
    steps: Steps
    checkpoints: Path
    graphs: list[Graph] = field(default_factory=list)
    noise: tuple[EncodingNoise, ...] = ()  # what chose the bits of the shared U-Net's activations

    def run(self) -> Bundle:
        steps, tasks = self.steps, self.prepared.tasks
        with steps("lora profile"):
            found = self._sensitivity()
            lora = self._profile(found)
            self.prepared.release()
        with steps("quantize"):
            for component, model in self.prepared.models.items():
                self.graphs.append(self.writer.graph(model, Variant.FLOAT, component))
            encodings, unet = self._quantize(lora)
        distilled = self._distill(lora, unet)
        del unet  # nearly a gigabyte, where the model is large
        lora = replace(lora, adapters=lora.adapters | {name: made.adapter for name, made in distilled.items()})
        with steps("adapters"):
            base = self._base(encodings)
            profile = self._write_profile(base, lora, found, encodings, distilled)
            exact, shapes = self.prepared.adapters, self.prepared.shapes
            files = [self.writer.adapter(a, exact[n], shapes, lora.encodings, base) for n, a in lora.adapters.items()]
        with steps("per-graph baselines"):
            self._baselines()
        with steps("task files" if has_random_weights(self.recipe) else "reference images"):
            assets = tuple(self._assets(task) for task in tasks)
        return Bundle(
            digest=self.digest,
            recipe_name=self.recipe.name,
            recipe_digest=recipe_digest(self.recipe),
            precision=self.recipe.precision.label,
            tool_versions=tool_versions(),
            graphs=tuple(self.graphs),
            adapters=tuple(file for pair in files for file in pair),
            tasks=assets,
            profile=profile,
            base=base,
            build_seconds=steps.seconds,
            build_peak_bytes=steps.peak_bytes,
            caveats=(Caveat.RANDOM_WEIGHTS,) if has_random_weights(self.recipe) else (),
        )

    def _sensitivity(self) -> Sensitivity | None:
        """Where the recipe leaves the anchor open: what chooses it, without the pass over single sites."""
        profile = self.recipe.quad.profile
        if not isinstance(profile, AnchorProfile) or profile.adapter is not None:
            return None
        found = sensitivity(self.prepared, dtype=self.recipe.precision.lora, site_samples=0)
        log.info("build: %s (%s)", f"anchor '{a}'" if (a := found.choice.anchor) else "unified ranges", found.choice.reason)
        return found

    def _profile(self, found: Sensitivity | None) -> LoraProfile:
        quad = self.recipe.quad
        named = quad.profile.adapter if isinstance(quad.profile, AnchorProfile) else None
        return lora_profile(
            list(self.prepared.adapters.values()),
            anchor=found.choice.anchor if found else named,
            gauge=quad.profile.gauge,
            headroom=quad.profile.headroom,
            dtype=self.recipe.precision.lora,
        )

    def _quantize(self, lora: LoraProfile) -> tuple[dict[str, dict[str, Encoding]], ModelProto]:
        """Write the shared graphs; returns the encodings of all of their tensors by component, and the U-Net."""
        tasks, visits = self.prepared.tasks, self.prepared.visits
        feeds = {
            Component.TEXT_ENCODER: [token_feed(ids) for ids in self._token_rows(tasks)],
            Component.VAE_ENCODER: [
                {"image": item.image.numpy()} for t in tasks for item in t.items.calibration if item.image is not None
            ],
            Component.VAE_DECODER: [{"latent": latent.numpy()} for v in visits.values() for latent in v.latents],
            Component.UNET: list(self._unet_feeds(lora)),
        }
        percent = self.recipe.precision.activations.int8_percent
        encodings, models = {"lora": dict(lora.encodings)}, {}
        for component, model in self.prepared.models.items():
            if not feeds[component]:
                continue  # no task takes an image
            is_unet = component is Component.UNET
            inputs = lora.encodings if is_unet else None
            part = f"{component.value} under {lora.anchor}"  # the anchor shapes the adapters, and may follow from their bits
            calibrated = self.intermediates.calibrated(self.recipe, part, partial(Calibrated, model, feeds[component]))
            made = quantized(calibrated, int8_percent=percent if is_unet else 0, lora=inputs)
            self.noise += made.noise
            encodings[component.value], models[component] = made.activations, made.model
            self.graphs.append(self.writer.graph(made.model, Variant.SHARED, component, lora=inputs))
        return encodings, models[Component.UNET]

    def _distill(self, lora: LoraProfile, unet: ModelProto) -> dict[str, Distilled]:
        """Train the adapters that the recipe wants trained. An interrupted build goes on where it was."""
        spec = self.recipe.quad.distill
        if spec is None:
            return {}
        settings = Settings(**spec.model_dump(exclude={"adapters"}))
        names = spec.adapters or tuple(lora.adapters)
        with self.steps("distill"):
            return distill_adapters(
                self.prepared,
                lora,
                unet,
                names=names,
                settings=settings,
                checkpoints={name: self.checkpoints / f"{self.digest[:16]}-{name}.pt" for name in names},
                notify=self.steps.notify,
            )

    def _base(self, encodings: Mapping[str, Mapping[str, Encoding]]) -> BaseDigests:
        unet = next(g for g in self.graphs if g.variant is Variant.SHARED and g.component is Component.UNET)
        return BaseDigests(graph=unet.file.sha256, profile=digest_of(_listed(encodings)))

    def _write_profile(
        self,
        base: BaseDigests,
        lora: LoraProfile,
        found: Sensitivity | None,
        encodings: Mapping[str, Mapping[str, Encoding]],
        distilled: Mapping[str, Distilled],
    ) -> FileRef:
        profile = {
            "schema_version": SCHEMA_VERSION,
            "digest": base.profile,
            "anchor": lora.anchor,
            "chosen_by": "sensitivity" if found else "recipe",
            "sensitivity": asdict(found) if found else None,
            "adapters": _fit_rows(lora),
            "distillation": [_distillation_row(name, made) for name, made in distilled.items()],
            "mixed": self._noise_rows(encodings[Component.UNET.value]),
            "encodings": _listed(encodings),
        }
        return self.writer.json("profile.json", profile)

    def _noise_rows(self, encodings: Mapping[str, Encoding]) -> list[dict[str, object]] | None:
        """The measured list, least noise first, with what followed from it; None where nothing was left to choose."""
        return [asdict(row) | {"dtype": encodings[row.tensor].dtype} for row in self.noise] or None

    def _unet_feeds(self, lora: LoraProfile) -> Iterator[Feed]:
        """joint: every task's inputs under its adapter, and again without any; anchor: those of the profile's adapter alone."""
        prepared, is_joint = self.prepared, not isinstance(self.recipe.quad.calibration, AnchorCalibration)
        for task in self.recipe.tasks:
            adapters = [task.adapter] if is_joint or task.adapter == lora.anchor else []
            if is_joint and task.adapter is not None:
                adapters.append(None)
            for adapter in adapters:
                weights = prepared.feed(lora.adapters[adapter] if adapter else None)
                yield from (feed | weights for feed in prepared.visits[task.name].feeds)

    def _token_rows(self, tasks: list[PreparedTask]) -> list[tuple[int, ...]]:
        """Calibration prompts, and the vocabulary in rows, so that no token of a later prompt is a surprise."""
        prompts = [ids for task in tasks for item in task.items.calibration for ids in (item.input_ids, item.negative_input_ids)]
        length = len(prompts[0])
        begin, end = prompts[0][0], self.prepared.foundation.tokenize("")[1]
        vocabulary = list(range(len(self.prepared.foundation.tokenizer)))
        random.Random(0).shuffle(vocabulary)
        rows = [vocabulary[i : i + length - 2] for i in range(0, len(vocabulary), length - 2)][:VOCABULARY_ROWS]
        return prompts + [(begin, *row, *(end,) * (length - 1 - len(row))) for row in rows]

    def _baselines(self) -> None:
        """For each task a U-Net of its own: adapter merged, calibrated on that task alone."""
        prepared = self.prepared
        for task in self.recipe.tasks if "per-graph" in self.recipe.baselines else ():
            model = self._merged(prepared.adapters[task.adapter] if task.adapter else None)
            percent = self.recipe.precision.activations.int8_percent
            made = quantized(Calibrated(model, prepared.visits[task.name].feeds), int8_percent=percent)
            self.graphs.append(self.writer.graph(made.model, Variant.PER_GRAPH, Component.UNET, task=task.name))
            discard(model)

    def _merged(self, adapter: Adapter | None) -> ModelProto:
        """The float U-Net with an adapter in its own weights, and without LoRA inputs."""
        foundation = self.prepared.foundation
        unet = copy_of_modules(foundation.unet)
        if adapter is not None:
            merge(adapter, unet)
        model = export_unet(foundation, unet, {}, self.intermediates.scratch)
        foundation.release()
        return model

    def _pictures(self, prepared: PreparedTask) -> Mapping[str, Image]:
        """The float reference's, by item. None for random weights: their pictures are noise, and nothing to be near to."""
        if has_random_weights(self.recipe):
            return {}
        task = prepared.task
        adapter = adapter_source(self.recipe.adapters[task.adapter]) if task.adapter else None
        reference = reference_for(self.prepared.foundation, task, prepared.table, adapter)
        return {item.name: reference.render(item) for item in prepared.items.evaluation}

    def _assets(self, prepared: PreparedTask) -> TaskAssets:
        task, name = prepared.task, prepared.task.name
        pictures = self.intermediates.pictures(self.recipe, name, partial(self._pictures, prepared))
        items = tuple(
            TaskItem(
                name=item.name,
                image=self.writer.copy(f"inputs/{name}/{item.name}.png", item.image_path),
                mask=self.writer.copy(f"inputs/{name}/{item.name}.mask.png", item.mask_path),
                truth=self.writer.copy(f"inputs/{name}/{item.name}.truth.png", item.truth_path) if pictures else None,
                reference=self.writer.image(f"reference/{name}/{item.name}.png", pictures[item.name]) if pictures else None,
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
            tensors=self.writer.tensors(f"tasks/{name}.safetensors", as_feed(prepared.tensors(self.prepared.foundation))),
            items=items,
            fit_error=prepared.table.fit_error,
        )
