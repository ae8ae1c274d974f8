"""Admission: judging whether a LoRA fits a built bundle, and adding it, optionally with a new task. Graphs stay unchanged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL.Image import Image
from safetensors.numpy import load_file

from quadbench.artifacts import Bundle, Caveat, Component, StoredBundle, TaskAssets, TaskItem, Variant
from quadbench.artifacts.bundle import NOISE_PREFIX, BaseDigests
from quadbench.artifacts.run_record import file_refs
from quadbench.errors import UnknownNameError, UserError
from quadbench.quad.adapters.adapter import Adapter, OmittedPart
from quadbench.quad.adapters.inspection import Inspection, inspect_adapter
from quadbench.quad.adapters.loading import load_adapter, read_adapter, sites_of_graph
from quadbench.quad.adapters.lora_profile import Judgement, gauge, judge
from quadbench.quad.candidate import Candidate, NewTask, adapter_name, name_after
from quadbench.quad.items import Item, fixed_table, task_items
from quadbench.quad.model.foundation import Foundation, open_foundation
from quadbench.quad.model_files import AdapterSource, adapter_digests, has_random_weights
from quadbench.quad.prepare import sites_of
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.reference import reference_for
from quadbench.quad.samplers.table import SamplerTable, read_table
from quadbench.quad.writer import BundleWriter, lora_encodings_of
from quadbench.recipe import Recipe, Task, mix_name
from quadbench.recipe.tasks import MAX_WEIGHT, NO_TASK, is_mix
from quadbench.results.digests import code_digests, digest_of
from quadbench.results.layout import folder_name
from quadbench.results.manifest import check_contents, link_file, publish
from quadbench.spec import NAME_EXPECTED, is_name
from quadbench.spec.spec_model import MAX_NAME_LENGTH

_NOISE_TOLERANCE = 1e-5  # for normally distributed noise, whose last bit may differ between machines
_OWN_RECIPE = "give the recipe that built the bundle, unchanged"
_PARTS = (0.75, 0.5, 0.25)  # factors to try on the weight of a refused adapter
Painting = Callable[[int, int], None]  # progress callback: number of the reference image being started, and total


@dataclass(frozen=True, kw_only=True)
class Admission:
    """The result of judging whether an adapter, multiplied by `weight`, fits a bundle. `extended` is the new bundle with the
    adapter; None if no bundle was written. `fits_at` is a smaller weight at which a refused adapter fits; None if none is known.
    """

    name: str
    weight: float
    base: BaseDigests
    judgement: Judgement
    extended: StoredBundle | None
    left_out: OmittedPart | None = None
    fits_at: float | None = None


def judge_candidate(candidate: Candidate, bundle: StoredBundle) -> Admission:
    """Measure an adapter's quantization error under the LoRA encodings of a bundle. Return an Admission; write nothing."""
    name, weight = candidate.name or adapter_name(candidate.source, hint="give a name with --name"), candidate.weight
    if not is_name(name):
        raise UserError(f"'{name}' is not an adapter name; expected at most {MAX_NAME_LENGTH} characters: {NAME_EXPECTED}")
    if not 0.0 < weight <= MAX_WEIGHT:
        raise UserError(f"weight {weight:g} is out of range; expected more than 0 and at most {MAX_WEIGHT:g}")
    encodings = lora_encodings_of(bundle)
    adapter = _load(name, candidate, bundle.artifact, encodings).at_weight(weight)
    return Admission(
        name=name,
        weight=weight,
        base=bundle.artifact.base,
        judgement=judge(adapter, encodings),
        extended=None,
        left_out=adapter.left_out,
    )


def admit(candidate: Candidate, bundle: StoredBundle, *, painting: Painting = lambda _number, _total: None) -> Admission:
    """Write a copy of a bundle with an adapter added, and with a new task if `candidate.task` requests one. Write nothing if the
    adapter does not fit the bundle. Return an Admission, which says whether the adapter fits.

    The adapter is gauge-aligned, which is exact and only improves rounding. Graph files are reused, so nothing is compiled again.

    Raises:
        UserError: the name or weight is invalid, or the bundle already has an adapter or task of that name.
        AdapterError: the adapter cannot be read, or has a site that the base lacks, or a larger rank there.
        ArtifactError: a file of the bundle does not match its manifest.
    """
    admission = judge_candidate(candidate, bundle)
    if admission.name in {adapter.name for adapter in bundle.artifact.adapters}:
        hint = "give the new adapter another name with --name"
        raise UserError(f"bundle {bundle.artifact.digest[:12]} already has an adapter '{admission.name}'", hint=hint)
    if candidate.task:
        template_task(candidate.task, bundle.artifact, admission.name)
    if not admission.judgement.acceptance.is_admitted:
        smaller = (round(candidate.weight * part, 6) for part in _PARTS)
        fitting = (w for w in smaller if judge_candidate(replace(candidate, weight=w), bundle).judgement.acceptance.is_admitted)
        return replace(admission, fits_at=next(fitting, None))
    return replace(admission, extended=_extend(bundle, admission, candidate, painting))


def inspect_candidate(
    source: Path, *, recipe: Recipe | None = None, bundle: StoredBundle | None = None, unet_only: bool = False
) -> tuple[Inspection, Admission | None]:
    """Return (Inspection, Admission) of an adapter; Admission is None without a `bundle`. With a `recipe`, the Inspection lists
    mismatches with the recipe's model. Raise AdapterError if the file is unreadable or does not fit the bundle.
    """
    inspection = inspect_adapter(source, sites_of(recipe) if recipe else None, unet_only=unet_only)
    candidate = Candidate(source=source, name=name_after(source) or "adapter", unet_only=unet_only)
    return inspection, judge_candidate(candidate, bundle) if bundle else None


def _load(name: str, candidate: Candidate, bundle: Bundle, encodings: dict[str, Encoding]) -> Adapter:
    """Read a candidate's file into an Adapter. Rename layers and reshape tensors to match the bundle's shared U-Net graph."""
    unet = next(g for g in bundle.graphs if g.variant is Variant.SHARED and g.component is Component.UNET)
    sites = sites_of_graph({spec.name: spec.shape for spec in unet.inputs if spec.name in encodings})
    return load_adapter(name, candidate.source, sites, unet_only=candidate.unet_only)


def _extend(bundle: StoredBundle, admission: Admission, candidate: Candidate, painting: Painting) -> StoredBundle:
    """Write a copy of a bundle, in the same parent folder, with the candidate's adapter and any new task. Return the copy."""
    check_contents(bundle, file_refs(bundle.artifact))  # the new bundle has the same files under the same digests
    encodings, old = lora_encodings_of(bundle), bundle.artifact
    adapter = _load(admission.name, candidate, old, encodings).at_weight(admission.weight)
    named = {"name": admission.name, "weight": admission.weight, "adapter": adapter_digests(candidate.source)}
    if candidate.task:
        named["like"] = candidate.task.like
    digest = digest_of({"bundle": old.digest, **named, "code": code_digests(__name__)})

    def fill(temporary: Path) -> Bundle:
        for file in {file.path: file for file in file_refs(old)}.values():
            link_file(bundle.path(file), temporary / file.path)
        writer = BundleWriter(temporary)
        files = writer.adapter(gauge(adapter, encodings), adapter, encodings, old.base)
        tasks = old.tasks
        if candidate.task:
            content = read_adapter(admission.name, candidate.source, unet_only=candidate.unet_only)
            source = AdapterSource(format=content.format, path=content.path, unet_only=candidate.unet_only)
            sources, weights = {admission.name: source}, {admission.name: admission.weight}
            tasks += (new_task(candidate.task, bundle, sources, weights, writer, painting),)
        doubts = {*old.caveats, *((Caveat.UNET_ONLY,) if adapter.left_out else ())}
        caveats = tuple(caveat for caveat in Caveat if caveat in doubts)
        return replace(old, digest=digest, adapters=(*old.adapters, *files), tasks=tasks, caveats=caveats)

    return publish(bundle.folder.parent / folder_name(digest), fill)


def template_task(new: NewTask, bundle: Bundle, name: str) -> TaskAssets:
    """Return the bundle's task `new.like`. Raise UserError if bundle or recipe lacks the task, or `name` is taken or reserved."""
    tasks = {task.name: task for task in bundle.tasks}
    if new.like not in tasks or new.like not in {task.name for task in new.recipe.tasks}:
        raise UnknownNameError("task", new.like, [task.name for task in new.recipe.tasks])
    hint = "give the adapter another name with --name"
    if name == NO_TASK:
        raise UserError(f"a task cannot be named '{name}'; a launch uses that name before its first task", hint=hint)
    if name in tasks:
        raise UserError(f"bundle {bundle.digest[:12]} already has a task '{name}'", hint=hint)
    return tasks[new.like]


def new_task(
    new: NewTask,
    bundle: StoredBundle,
    sources: Mapping[str, AdapterSource],
    weights: Mapping[str, float],
    writer: BundleWriter,
    painting: Painting = lambda _number, _total: None,
) -> TaskAssets:
    """Return a copy of the bundle's task `new.like` for a new adapter: the same inputs, noise and sampler, no ground-truth
    images. Write reference images made by diffusers or PEFT, unless weights of the recipe's model or adapters are random.
    `weights` maps the adapter's name to its LoRA factor. `sources` maps the same name to a file.
    """
    (name,) = weights
    like = template_task(new, bundle.artifact, name)
    pictures: dict[str, Image] = {}
    if not has_random_weights(new.recipe):  # images of random weights show nothing
        foundation, table = open_foundation(new.recipe.foundation), read_table(bundle.path(like.table))
        task = task_as_built(new, like, table, foundation)
        inputs = task_items(task, foundation, calibration_samples=new.recipe.quad.calibration.samples).evaluation
        check_items(inputs, like, load_file(bundle.path(like.tensors)), foundation)
        reference = reference_for(foundation, task.model_copy(update={"adapter": dict(weights)}), table, sources)
        for number, item in enumerate(inputs, start=1):
            painting(number, len(inputs))
            pictures[item.name] = reference.render(item)
    items = tuple(
        replace(
            own,
            truth=None,
            reference=writer.image(f"reference/{name}/{own.name}.png", pictures[own.name]) if pictures else None,
        )
        for own in like.items
    )
    mix = dict(weights) if is_mix(weights) else None
    return replace(like, name=name, adapter=mix_name(weights), mix=mix, items=items, fit_error=None)


def task_as_built(new: NewTask, like: TaskAssets, table: SamplerTable, foundation: Foundation) -> Task:
    """Return the recipe's task `like.name`, from its default or a device's settings, with the bundle's sampler and guidance. A
    sampler fitted in the build needs only the same scheme, and at least the bundle's steps. Raise UserError if no task matches.
    """
    recipes = (new.recipe.for_device(profile) for profile in (None, *new.recipe.devices))
    for task in (task for recipe in recipes for task in recipe.tasks if task.name == like.name):
        known = fixed_table(task, foundation)  # None for a sampler fitted during the build
        is_same = known == table if known else like.steps <= task.sampler.steps
        if is_same and (task.sampler.scheme, task.guidance) == (like.scheme, like.guidance):
            return task
    raise UserError(
        f"task '{like.name}' of the bundle has {like.steps} steps of {like.scheme} with guidance {like.guidance:g}; "
        "in the recipe the task has another sampler, strength or guidance",
        hint=_OWN_RECIPE,
    )


def check_items(items: Sequence[Item], like: TaskAssets, tensors: Mapping[str, np.ndarray], foundation: Foundation) -> None:
    """Raise UserError unless a recipe's `items` and their noise equal those in the bundle's task `like` and its `tensors`."""
    pairs = zip(like.items, items, strict=False)
    others = [own.name for own, item in pairs if not _is_same(own, item, tensors, foundation, like.steps)]
    if others or len(items) != len(like.items):
        first = f": input '{others[0]}' differs" if others else f": {len(items)} instead of {len(like.items)}"
        raise UserError(f"task '{like.name}' has other inputs in the recipe than in the bundle{first}", hint=_OWN_RECIPE)


def _is_same(own: TaskItem, item: Item, tensors: Mapping[str, np.ndarray], foundation: Foundation, steps: int) -> bool:
    texts = (own.name, own.prompt, own.tokens, own.negative_tokens)
    if texts != (item.name, item.prompt, item.tokens, item.negative_tokens):
        return False
    if (own.image is None, own.mask is None, own.blend is None) != (item.image is None, item.mask is None, item.blend is None):
        return False
    noise, drawn = tensors[NOISE_PREFIX + own.name], item.noise(foundation, steps).numpy()
    return noise.shape == drawn.shape and np.allclose(noise, drawn, atol=_NOISE_TOLERANCE)
