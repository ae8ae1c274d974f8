"""SQNR of quantized U-Nets against float at each sampler step, and PSNR of few-step images against images of 100 DDIM steps."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from quadbench.artifacts import LORA_PREFIX, CompiledBundle, Component, Graph, RunResult, Status, run_record
from quadbench.artifacts.bundle import (
    NOISE_PREFIX,
    HeldOutScores,
    StoredBundle,
    StoredCompiled,
    TaskAssets,
    TaskItem,
    TrajectorySqnr,
    Variant,
)
from quadbench.artifacts.pixels import psnr_db, read_pixels
from quadbench.compile.qnn import run_on_emulator
from quadbench.errors import UserError
from quadbench.quad.held_out_inputs import along_trajectory
from quadbench.quad.items import task_items, teacher_of
from quadbench.quad.model.foundation import open_foundation
from quadbench.quad.model.initializers import open_graph
from quadbench.quad.model_files import adapter_source
from quadbench.quad.prepare import Notify, ignore_step
from quadbench.quad.reference import reference_for
from quadbench.quad.runner import Denoiser, Feed, GraphSession, RunConditions, encode_prompts, mixed_inputs
from quadbench.quad.samplers.table import SamplerTable, read_table, run_table
from quadbench.quality.image_scores import REFERENCE, refuse_random
from quadbench.quality.metrics import Values, as_batch, cosine, sqnr_db
from quadbench.recipe import Recipe, Task
from quadbench.recipe.tasks import TEACHER_STEPS, LcmSampler, OlssSampler, TcdSampler
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents, read_manifest

log = logging.getLogger(__name__)
_QUANTIZED = (Variant.SHARED, Variant.PER_GRAPH)
EPS_SQNR = run_record.Metric(
    name="eps_sqnr",
    title="SQNR of eps",
    unit="dB",
    better=run_record.BetterDirection.HIGHER,
    definition="10 log10(sum eps^2 / sum (eps~ - eps)^2) over all U-Net runs; both U-Nets get the same inputs.",
)
LATENT_SQNR = run_record.Metric(
    name="latent_sqnr",
    title="SQNR of latents",
    unit="dB",
    better=run_record.BetterDirection.HIGHER,
    definition="SQNR of the latents that reach the decoder. Each variant uses its own encoders, U-Net and trajectory.",
)
LATENT_COSINE = run_record.Metric(
    name="latent_cosine",
    title="Cosine of latents",
    unit="",
    better=run_record.BetterDirection.HIGHER,
    definition="Cosine similarity of these latents as vectors; mean over items.",
)
INPUTS = 1  # evaluation inputs per task: on the emulator, the built-in U-Net takes seconds, a large one hours
TARGETS = "qnn-"
TIMEOUT_S = 6 * 3600.0
HTP_TO_CPU, HTP_TO_FLOAT, CPU_TO_FLOAT = "HTP against CPU", "HTP against float", "CPU against float"
TaskLikeness = Mapping[tuple[str, str], Mapping[str, float]]  # by task and device, then by item: PSNR in dB
_LONG = OlssSampler(scheme="olss", steps=TEACHER_STEPS)


def compare_latents(bundle: StoredBundle) -> tuple[run_record.ImageComparison, ...]:
    """Score noise predictions and latents of quantized variants against float. Return an ImageComparison per task and variant."""
    refuse_random(bundle.artifact)
    compared = []
    for task in bundle.artifact.tasks:
        float_model = TaskModel.load(bundle, task, Variant.FLOAT)
        exact = [float_model.run(item) for item in task.items]
        for variant in _QUANTIZED:
            if variant is Variant.SHARED or task.name in run_record.own_graph_tasks(bundle.artifact):
                model = TaskModel.load(bundle, task, variant)
                log.info("quality: latents of %s, %s, %d items", task.name, variant, len(task.items))
                scores = _scores(exact, [model.run(item) for item in task.items], model)
                compared.append(
                    run_record.ImageComparison(task=task.name, device=None, made=variant.value, against=REFERENCE, scores=scores)
                )
    return tuple(compared)


@dataclass(frozen=True, kw_only=True)
class LatentTrajectory:
    """A sampler run on one input: U-Net inputs (except LoRA) and predicted noise per call, and the final latent (1, 4, h, w)."""

    feeds: list[Feed]
    eps: list[Values]
    latent: Values


@dataclass(frozen=True, kw_only=True)
class TaskModel:
    """A bundle's task, loaded to run in one variant: text and VAE encoders, U-Net, LoRA inputs, sampler steps and noise."""

    task: TaskAssets
    bundle: StoredBundle
    table: SamplerTable
    tensors: Mapping[str, torch.Tensor]
    text_encoder: GraphSession
    vae_encoder: GraphSession | None
    unet: GraphSession
    lora: Feed

    @classmethod
    def load(cls, bundle: StoredBundle, task: TaskAssets, variant: Variant) -> "TaskModel":
        """Load a bundle's task in one variant, with its graphs, adapters, sampler steps and noise. Return a TaskModel."""
        encoders = Variant.FLOAT if variant is Variant.FLOAT else Variant.SHARED  # the per-graph variant shares its encoders
        unet = _graph(bundle, variant, Component.UNET, task.name if variant is Variant.PER_GRAPH else None)
        has_images = any(item.image is not None for item in task.items)
        inputs = [spec for spec in unet.inputs if spec.name.startswith(LORA_PREFIX)]
        lora: Feed = {}  # the task's adapters in the graph's dtype; zeros for no adapter, empty if adapters are merged
        if inputs:
            files = run_record.adapters_of(bundle.artifact, unet.variant, [task])
            factors = run_record.factors_of(task, files)
            lora = mixed_inputs([(bundle.path(files[name].file), factor) for name, factor in factors.items()], inputs)
        return cls(
            task=task,
            bundle=bundle,
            table=read_table(bundle.path(task.table)),
            tensors={name: torch.from_numpy(values) for name, values in load_file(bundle.path(task.tensors)).items()},
            text_encoder=_session(bundle, _graph(bundle, encoders, Component.TEXT_ENCODER)),
            vae_encoder=_session(bundle, _graph(bundle, encoders, Component.VAE_ENCODER)) if has_images else None,
            unet=_session(bundle, unet),
            lora=lora,
        )

    def predict(self, feed: Feed) -> torch.Tensor:
        """Return the U-Net's noise prediction (1, 4, h, w) for inputs `feed`, to which the task's LoRA inputs are added."""
        return self.unet(feed | self.lora)

    def run(self, item: TaskItem) -> LatentTrajectory:
        """Run the sampler on one input. Return a LatentTrajectory of U-Net inputs, predicted noise and the final latent."""
        noise = self.tensors[NOISE_PREFIX + item.name]  # (1 + steps, 4, h, w)
        prompt, negative = encode_prompts(self.text_encoder, item.tokens, item.negative_tokens)
        condition = RunConditions(
            embedded={name: tensor for name, tensor in self.tensors.items() if not name.startswith(NOISE_PREFIX)},
            prompt=prompt,
            negative=negative,
            lora={},
            guidance=self.task.guidance,
        )
        denoiser = Denoiser(unet=self.predict, condition=condition, record=True)
        latent, mask = torch.zeros_like(noise[:1]), None
        if item.image and self.vae_encoder:
            latent = self.vae_encoder({"image": (as_batch(read_pixels(self.bundle.path(item.image))) * 2 - 1).numpy()})
        if item.mask:  # downsampled by nearest neighbour like in the harness; 1 marks pixels to replace
            grey = as_batch(read_pixels(self.bundle.path(item.mask)))[:, :1]
            mask = torch.nn.functional.interpolate((grey >= 0.5).float(), size=tuple(noise.shape[2:]))
        final = run_table(self.table, denoiser, latent=latent, noise=noise, mask=mask)
        return LatentTrajectory(feeds=denoiser.feeds, eps=[eps.numpy() for eps in denoiser.eps], latent=final.numpy())


def _scores(
    exact: Sequence[LatentTrajectory], quantized: Sequence[LatentTrajectory], model: TaskModel
) -> tuple[run_record.Score, ...]:
    eps = [value for trajectory in exact for value in trajectory.eps]
    eps_quantized = [model.predict(feed).numpy() for trajectory in exact for feed in trajectory.feeds]
    latents, latents_quantized = [t.latent for t in exact], [t.latent for t in quantized]
    cosines = [cosine(a, b) for a, b in zip(latents, latents_quantized, strict=True)]
    mean = float(np.mean(cosines))
    return (
        _sqnr_score(EPS_SQNR, eps, eps_quantized),
        _sqnr_score(LATENT_SQNR, latents, latents_quantized),
        run_record.Score(
            metric=LATENT_COSINE, value=mean if math.isfinite(mean) else "undefined: a latent is zero", n=len(cosines)
        ),
    )


def _sqnr_score(metric: run_record.Metric, exact: Sequence[Values], quantized: Sequence[Values]) -> run_record.Score:
    value = sqnr_db(exact, quantized)
    return run_record.Score(metric=metric, value=value if math.isfinite(value) else "nothing differs", n=len(exact))


def _graph(bundle: StoredBundle, variant: Variant, component: Component, task: str | None = None) -> Graph:
    return next(g for g in bundle.artifact.graphs if (g.variant, g.component, g.task) == (variant, component, task))


def _session(bundle: StoredBundle, graph: Graph) -> GraphSession:
    return GraphSession(open_graph(bundle.path(graph.file), bundle.path(graph.data) if graph.data else None))


def emulated_trajectories(result: RunResult, layout: Layout, notify: Callable[[str], None]) -> dict[str, HeldOutScores]:
    """Compare the `shared` U-Net on HTP emulator, CPU and in float. Return {compile target: HeldOutScores with noise SQNRs}."""
    refuse_random(result.bundle)
    ran = {r.compiled_digest: r for r in result.records if r.status is Status.OK and r.target.startswith(TARGETS)}
    if not ran:
        raise UserError(
            f"run {result.run_id} has no launch of graphs that this machine compiled for a Qualcomm HTP",
            hint="run on a phone with a qnn target, or on virtual:s25?target=qnn",
        )
    judged = {}
    for digest, record in ran.items():
        compiled = read_manifest(layout.compiled_bundle(digest), CompiledBundle)
        bundle = result.stored_bundle_on(record.device)
        check_contents(compiled, run_record.file_refs(compiled.artifact.graphs))
        check_contents(bundle, run_record.file_refs(bundle.artifact))
        where = f"{record.target} for {record.device.profile}" if len(ran) > 1 else record.target
        judged[where] = HeldOutScores(inputs=INPUTS, trajectories=htp_trajectories(bundle, compiled, notify), clippings=())
    return judged


def htp_trajectories(bundle: StoredBundle, compiled: StoredCompiled, notify: Callable[[str], None]) -> tuple[TrajectorySqnr, ...]:
    """Compare U-Net noise on HTP emulator, CPU and in float, in pairs. Return a tuple of TrajectorySqnr, three per task."""
    trajectories: list[TrajectorySqnr] = []
    for task in bundle.artifact.tasks:
        notify(f"{task.name} on the HTP emulator")
        trajectories += _emulated_task(bundle, compiled, task)
    return tuple(trajectories)


def _emulated_task(bundle: StoredBundle, compiled: StoredCompiled, task: TaskAssets) -> list[TrajectorySqnr]:
    """Compare a task's U-Net noise on HTP emulator, CPU and in float, in pairs. Return a list of three TrajectorySqnr."""
    exact, shared = (TaskModel.load(bundle, task, variant) for variant in (Variant.FLOAT, Variant.SHARED))
    runs = [exact.run(item) for item in task.items[:INPUTS]]
    feeds = [feed for run in runs for feed in run.feeds]
    of_float = [eps for run in runs for eps in run.eps]
    of_cpu = [shared.predict(feed).numpy() for feed in feeds]
    graph = run_record.unets_of(bundle.artifact, compiled.artifact, Variant.SHARED, [task])[run_record.BASE_UNET]
    htp_arch = compiled.artifact.tool_versions["htp_arch"]
    of_htp = run_on_emulator(compiled.path(graph.file), htp_arch, [feed | shared.lora for feed in feeds], timeout_s=TIMEOUT_S)
    steps = [index * len(exact.table.steps) // len(run.feeds) for run in runs for index in range(len(run.feeds))]
    pairs = {HTP_TO_CPU: (of_cpu, of_htp), HTP_TO_FLOAT: (of_float, of_htp), CPU_TO_FLOAT: (of_float, of_cpu)}
    trajectories = []
    for name, (right, other) in pairs.items():
        sqnr, by_step = along_trajectory(exact.table.timesteps, steps, right, other)
        trajectories.append(TrajectorySqnr(task=task.name, variant=name, inputs=INPUTS, sqnr_db=sqnr, steps=by_step))
    return trajectories


class Teacher:
    """A maker of teacher images: the float pipeline paints each input with 100 DDIM steps. It skips LCM and TCD tasks."""

    def __init__(self, recipes: Sequence[Recipe], folder: Path) -> None:
        """Decide whether to make teacher images in `folder`: only if at least two of `recipes` use different samplers."""
        samplers = {tuple(task.sampler for task in recipe.tasks) for recipe in recipes}
        self._is_needed = len(samplers) > 1
        self._folder = folder
        self._painted: dict[str, dict[str, Path]] = {}

    def likeness(self, recipe: Recipe, result: RunResult, layout: Layout, *, notify: Notify = ignore_step) -> TaskLikeness:
        """Compare the variant `shared` with teacher images. Return a dict from (task, device) to {input name: PSNR in dB}."""
        tasks = [task for task in recipe.tasks if self._is_needed and not isinstance(task.sampler, LcmSampler | TcdSampler)]
        painted = {task.name: self._pictures(recipe, task, notify) for task in tasks}
        likeness: dict[tuple[str, str], dict[str, float]] = {}
        for record in result.records:
            for key, path in record.images.items() if record.variant is Variant.SHARED else ():
                task, item = key.split("/", 1)
                of_task = likeness.setdefault((task, record.device.address), {})
                if item in painted.get(task, {}) and item not in of_task:
                    of_task[item] = psnr_db(read_pixels(layout.file(path)), read_pixels(painted[task][item]))
        return likeness

    def _pictures(self, recipe: Recipe, task: Task, notify: Notify) -> dict[str, Path]:
        """Make a task's teacher images, or reuse those of a task that differs only in sampler. Return {input name: path}."""
        long = task.model_copy(update={"sampler": _LONG})
        key = repr((recipe.foundation, recipe.adapters, recipe.quad.calibration.samples, long))
        if key in self._painted:
            return self._painted[key]
        folder = self._folder / str(len(self._painted))
        folder.mkdir(parents=True)
        foundation = open_foundation(recipe.foundation)
        sources = {name: source for name in long.adapter if (source := adapter_source(recipe.adapters[name]))}
        reference = reference_for(foundation, long, teacher_of(long, foundation), sources)
        items = task_items(long, foundation, calibration_samples=recipe.quad.calibration.samples).evaluation
        paths = {item.name: folder / f"{item.name}.png" for item in items}
        for number, item in enumerate(items, start=1):
            notify(f"teacher's picture {number} of {len(items)} for {task.name}")
            reference.render(item).save(paths[item.name])
        self._painted[key] = paths
        return paths
