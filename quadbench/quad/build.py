"""Build: quantizing a recipe's model and adapters into a bundle."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from onnx import ModelProto
from PIL.Image import Image

from quadbench.artifacts import SCHEMA_VERSION, Bundle, Caveat, Component, FileRef, Graph, StoredBundle, TaskItem, Variant
from quadbench.artifacts.bundle import BaseDigests, TaskAssets, TaskKind
from quadbench.host import peak_memory_bytes, release_memory
from quadbench.quad import prepare
from quadbench.quad.adapters.adapter import Adapter
from quadbench.quad.adapters.lora_profile import LoraProfile, lora_profile
from quadbench.quad.cache import RecipeDigests, digests_of
from quadbench.quad.distill import DistilledAdapter, TrainingSettings, distill_adapters
from quadbench.quad.held_out_inputs import HeldOutInputs
from quadbench.quad.inputs import read_picture
from quadbench.quad.items import PreparedTask
from quadbench.quad.model_files import adapter_source, has_random_weights, tool_versions
from quadbench.quad.parts import BuildParts
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.merging import make_mergeable
from quadbench.quad.quantize.quantizer import LayerNoise, QuantizedGraph, write_qdq, write_weight_only
from quadbench.quad.runner import as_feed
from quadbench.quad.sensitivity import Sensitivity, sensitivity
from quadbench.quad.writer import LORA, BundleWriter, Encodings, encodings_digest, profile_content
from quadbench.recipe import Recipe, mix_name, recipe_digest
from quadbench.recipe.settings import AnchorProfile, FloatActivations, OwnTaskCalibration
from quadbench.recipe.tasks import is_mix
from quadbench.results.layout import Layout, folder_name
from quadbench.results.manifest import publish, temporary_folder

log = logging.getLogger(__name__)


def build(
    recipe: Recipe,
    layout: Layout,
    *,
    notify: prepare.Notify = prepare.ignore_step,
    intermediates: prepare.BuildCache | None = None,
) -> StoredBundle:
    """Quantize a recipe's model and adapters into a StoredBundle. The folder is named after the bundle's digest.

    `notify` is called with the name of each step as it starts. `cache.find_bundle` finds existing bundles instead.
    Builds that share `intermediates` compute common parts once, and only the first build's `build_seconds` include them.

    Raises:
        UserError: a part of the recipe is missing or does not fit; AdapterError if it is an adapter.
        BuildError: the graph cannot be quantized.
    """
    if intermediates is None:
        with temporary_folder(layout.scratch) as scratch:
            intermediates = prepare.BuildCache(scratch, layout.parts)
            bundle = build(recipe, layout, notify=notify, intermediates=intermediates)
        release_memory()  # the next compilation may need the memory
        return bundle
    digests, steps = digests_of(recipe), prepare.BuildSteps(notify)
    with torch.no_grad():
        parts = BuildParts(store=intermediates.store, foundation=digests.foundation)
        make = partial(prepare.prepare, recipe, steps, intermediates.scratch, parts=parts)
        prepared = intermediates.prepared(digests, make)

        def fill(temporary: Path) -> Bundle:
            return _Build(
                recipe=recipe,
                digests=digests,
                intermediates=intermediates,
                prepared=prepared,
                writer=BundleWriter(temporary),
                steps=steps,
                checkpoints=layout.checkpoints,
            ).run()

        return publish(layout.bundle(digests.bundle), fill)


@dataclass(kw_only=True)
class _Build:
    """The state of a running build: its inputs, and what it has written and measured so far."""

    recipe: Recipe
    digests: RecipeDigests
    intermediates: prepare.BuildCache
    prepared: prepare.PreparedRecipe
    writer: BundleWriter
    steps: prepare.BuildSteps
    checkpoints: Path
    graphs: list[Graph] = field(default_factory=list)
    noise: tuple[LayerNoise, ...] = ()  # the noise that decided which layers of the shared U-Net run in 8 bits

    def run(self) -> Bundle:
        """Run every step of the build and return the bundle."""
        steps = self.steps
        with steps("lora profile"):
            scores = self._sensitivity()
            lora = self._lora_profile(scores)
            self.prepared.release()
        with steps("quantize"):
            self.graphs += [self.writer.graph(model, Variant.FLOAT, part) for part, model in self.prepared.models.items()]
            encodings, unet = self._quantize(lora)
        distilled = self._distill(lora, unet.model)
        trained = replace(lora, adapters=lora.adapters | {name: result.adapter for name, result in distilled.items()})
        held_out = self._held_out(trained, unet)
        shared_encodings = unet.activations
        del unet  # nearly a gigabyte for a large model
        self._write_mergeable(shared_encodings, trained, held_out)
        with steps("adapters"):
            shared = next(g for g in self.graphs if g.variant is Variant.SHARED and g.component is Component.UNET)
            base = BaseDigests(graph=shared.file.sha256, profile=encodings_digest(encodings))
            content = profile_content(encodings, lora, sensitivity=scores, distilled=distilled, noise=self.noise)
            profile = self.writer.json("profile.json", content)
            exact = self.prepared.adapters
            files = [self.writer.adapter(a, exact[n], lora.encodings, base) for n, a in trained.adapters.items()]
        with steps("per-graph baselines"):
            self._write_baselines(lora.anchor, held_out)
        with steps("task files" if has_random_weights(self.recipe) else "reference images"):
            tasks = tuple(self._assets(task) for task in self.prepared.tasks)
        return Bundle(
            digest=self.digests.bundle,
            recipe_name=self.recipe.name,
            recipe_digest=recipe_digest(self.recipe),
            precision=self.recipe.precision.label,
            tool_versions=tool_versions(),
            graphs=tuple(self.graphs),
            adapters=tuple(file for pair in files for file in pair),
            tasks=tasks,
            profile=profile,
            base=base,
            build_seconds=steps.seconds,
            build_peak_bytes=peak_memory_bytes(),
            caveats=doubts_of(self.recipe, self.prepared.adapters.values()),
            held_out=held_out.evaluation if held_out else None,
        )

    def _sensitivity(self) -> Sensitivity | None:
        """Score each adapter's sensitivity to rounding, and choose the anchor: the adapter whose quantization ranges all adapters
        use. Return a Sensitivity, or None if the recipe names the anchor or pools the ranges of all adapters.
        """
        profile = self.recipe.quad.profile
        if not isinstance(profile, AnchorProfile) or profile.adapter is not None:
            return None
        scores = sensitivity(self.prepared, dtype=self.recipe.precision.lora, site_inputs=0)
        anchor = scores.choice.anchor
        log.info("build: %s (%s)", f"anchor '{anchor}'" if anchor else "unified ranges", scores.choice.reason)
        return scores

    def _lora_profile(self, scores: Sensitivity | None) -> LoraProfile:
        quad = self.recipe.quad
        named = quad.profile.adapter if isinstance(quad.profile, AnchorProfile) else None
        return lora_profile(
            list(self.prepared.adapters.values()),
            anchor=scores.choice.anchor if scores else named,
            gauge=quad.profile.gauge,
            headroom=quad.profile.headroom,
            dtype=self.recipe.precision.lora,
        )

    def _quantize(self, lora: LoraProfile) -> tuple[Encodings, QuantizedGraph]:
        """Write quantized graphs shared by tasks. Return (encodings by component such as `unet`, the U-Net's QuantizedGraph)."""
        groups = prepare.calibration_groups(self.recipe, self.prepared, lora)
        activations = self.recipe.precision.activations
        encodings, written = {LORA: dict(lora.encodings)}, {}
        for component, model in self.prepared.models.items():
            if not any(groups[component]):
                continue  # no task takes an image
            is_unet = component is Component.UNET
            inputs = lora.encodings if is_unet else None
            part = f"{component.value} under {lora.anchor}"  # the anchor changes the adapters, and may depend on their bits
            if isinstance(activations, FloatActivations):
                result = write_weight_only(model, lora=inputs)
            else:
                remember = self.prepared.parts.remember(self.prepared.keys[component])
                observe = partial(prepare.calibrate, self.recipe, model, *groups[component], remember=remember)
                own = self.intermediates.calibrated(self.digests, part, observe)
                result = write_qdq(own, int8_percent=activations.int8_percent if is_unet else 0, lora=inputs)
            self.noise += result.noise
            encodings[component.value], written[component] = result.activations, result
            graph = self.writer.graph(result.model, Variant.SHARED, component, lora=inputs)
            self.graphs.append(replace(graph, int8=result.int8) if is_unet else graph)
        return encodings, written[Component.UNET]

    def _distill(self, lora: LoraProfile, unet: ModelProto) -> dict[str, DistilledAdapter]:
        """Train the adapters that the recipe lists for distillation. An interrupted build resumes from its checkpoints."""
        spec = self.recipe.quad.distill
        if spec is None:
            return {}
        names = spec.adapters or tuple(lora.adapters)
        with self.steps("distill"):
            return distill_adapters(
                self.prepared,
                lora,
                unet,
                names=names,
                settings=TrainingSettings(**spec.model_dump(exclude={"adapters"})),
                checkpoints={name: self.checkpoints / f"{folder_name(self.digests.bundle)}-{name}.pt" for name in names},
                notify=self.steps.notify,
            )

    def _held_out(self, lora: LoraProfile, unet: QuantizedGraph) -> HeldOutInputs | None:
        """Return HeldOutInputs with SQNR and clipping of the shared U-Net on evaluation inputs; None if weights are random."""
        if has_random_weights(self.recipe):
            return None
        with self.steps("held-out inputs"):
            held_out = HeldOutInputs(self.prepared)
            held_out.evaluate_shared(self.prepared.models[Component.UNET], unet, lora)
            self.prepared.release()
        return held_out

    def _write_mergeable(self, activations: Mapping[str, Encoding], lora: LoraProfile, held_out: HeldOutInputs | None) -> None:
        """Write the U-Net into which devices merge an adapter at load time, if the recipe lists baseline `merged-at-load`."""
        if Variant.MERGED_AT_LOAD not in self.recipe.baselines:
            return
        with self.steps("merged-at-load baseline"):
            exact = self.prepared.models[Component.UNET]
            written = make_mergeable(exact, activations, lora.encodings, self.intermediates.scratch)
            graph = self.writer.graph(written.unet, Variant.MERGED_AT_LOAD, Component.UNET, merge=written.merge)
            self.graphs.append(replace(graph, int8=written.int8))
            if held_out:
                held_out.evaluate_merged(written, lora)

    def _write_baselines(self, anchor: str | None, held_out: HeldOutInputs | None) -> None:
        if Variant.PER_GRAPH not in self.recipe.baselines:
            return
        unets = prepare.per_graph_unets(self.recipe, self.prepared, self.intermediates.scratch, anchor=anchor)
        for task, exact, written in unets:
            graph = self.writer.graph(written.model, Variant.PER_GRAPH, Component.UNET, task=task)
            again = [replace(graph, variant=variant) for variant in map(Variant, self.recipe.baselines) if variant.is_repacked]
            self.graphs += [replace(graph, int8=written.int8), *again]
            if held_out:
                held_out.evaluate_own(task, exact, written)

    def _assets(self, prepared: PreparedTask) -> TaskAssets:
        """Write a task's inputs, reference images, sampler table and tensors. Return a TaskAssets that lists them."""
        task, name = prepared.task, prepared.task.name
        pictures = self._pictures(prepared)
        items = tuple(
            TaskItem(
                name=item.name,
                image=self._picture(f"inputs/{name}/{item.name}.png", item.image_path),
                mask=self._picture(f"inputs/{name}/{item.name}.mask.png", item.mask_path, "L"),
                blend=self.writer.image(f"inputs/{name}/{item.name}.blend.png", item.blend) if item.blend else None,
                truth=self._picture(f"inputs/{name}/{item.name}.truth.png", item.truth_path) if pictures else None,
                reference=self.writer.image(f"reference/{name}/{item.name}.png", pictures[item.name]) if pictures else None,
                prompt=item.prompt,
                tokens=dict(item.tokens),
                negative_tokens=None if item.negative_tokens is None else dict(item.negative_tokens),
            )
            for item in prepared.items.evaluation
        )
        return TaskAssets(
            name=name,
            kind=TaskKind(task.kind),
            adapter=mix_name(task.adapter) or None,
            mix=task.adapter if is_mix(task.adapter) else None,
            scheme=task.sampler.scheme,
            steps=len(prepared.table.steps),
            guidance=task.guidance,
            table=self.writer.json(f"tasks/{name}.json", {"schema_version": SCHEMA_VERSION, **asdict(prepared.table)}),
            tensors=self.writer.tensors(f"tasks/{name}.safetensors", as_feed(prepared.tensors(self.prepared.foundation))),
            items=items,
            fit_error=prepared.table.fit_error,
        )

    def _picture(self, name: str, source: Path | None, mode: str = "RGB") -> FileRef | None:
        """Write an input image or mask into the bundle as PNG and return its FileRef. Return None if `source` is None."""
        return self.writer.image(name, read_picture(source, mode, self.prepared.foundation.sizes.image)) if source else None

    def _pictures(self, prepared: PreparedTask) -> Mapping[str, Image]:
        """Return a task's reference images, float32 rendered, as a dict from input name to PIL image; {} for random weights."""
        if has_random_weights(self.recipe):
            return {}
        weights = prepared.task.adapter
        sources = {name: source for name in weights if (source := adapter_source(self.recipe.adapters[name]))}
        pictures = self.prepared.parts.pictures(prepared, sources, self.prepared.foundation)
        return {item.name: picture for item, picture in zip(prepared.items.evaluation, pictures, strict=True)}


def doubts_of(recipe: Recipe, adapters: Iterable[Adapter] = ()) -> tuple[Caveat, ...]:
    """Return a tuple of the caveats (reasons to distrust measured values) that apply to a recipe's bundle with `adapters`."""
    is_calibrated = not isinstance(recipe.precision.activations, FloatActivations)
    is_own = is_calibrated and isinstance(recipe.quad.calibration, OwnTaskCalibration)
    is_uneven = is_own and Variant.PER_GRAPH in recipe.baselines and len(recipe.tasks) > 1
    doubts = {
        Caveat.RANDOM_WEIGHTS: has_random_weights(recipe),
        Caveat.UNEVEN_CALIBRATION: is_uneven,
        Caveat.UNET_ONLY: any(adapter.left_out for adapter in adapters),
    }
    return tuple(caveat for caveat, is_so in doubts.items() if is_so)
