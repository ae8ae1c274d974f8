"""Recipe: what to build and what to measure, as a YAML file says it."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator

from quadbench.errors import UnknownNameError
from quadbench.published import published_table
from quadbench.yaml_document import Location
from quadbench.yaml_spec import Name, Problem, Spec, SpecPath, load, near, refuse

RECIPES_FOLDER = Path(__file__).parent / "recipes"
INT8_KEY = "precision.activations.int8"


class BuiltinFoundation(Spec):
    """A foundation model that comes with quadbench."""

    source: Literal["builtin"]
    name: Name
    """Its name in the built-in collection."""


class DiffusersFoundation(Spec):
    """A Stable Diffusion 1.x pipeline in diffusers' folder layout."""

    source: Literal["diffusers"]
    path: SpecPath
    """The folder with model_index.json; relative to this file."""


class CheckpointFoundation(Spec):
    """A Stable Diffusion 1.x model in one file, as its first authors laid it out."""

    source: Literal["checkpoint"]
    path: SpecPath
    """The .safetensors file; relative to this file."""


class RandomFoundation(Spec):
    """A model of a published size with random weights: bytes, time and memory are the real model's, pictures are noise."""

    source: Literal["random"]
    geometry: Literal["sd15", "bk-sdm-base"]
    """Stable Diffusion 1.5, or BK-SDM-Base, which has one block less in each stage of the U-Net."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the weights."""


Foundation: TypeAlias = Annotated[
    BuiltinFoundation | DiffusersFoundation | CheckpointFoundation | RandomFoundation, Field(discriminator="source")
]


class BuiltinAdapter(Spec):
    """A LoRA that comes with quadbench."""

    source: Literal["builtin"]
    name: Name
    """Its name in the built-in collection."""


class PeftAdapter(Spec):
    """A LoRA saved by PEFT."""

    source: Literal["peft"]
    path: SpecPath
    """The folder with adapter_config.json and adapter_model.safetensors; relative to this file."""


class DiffusersAdapter(Spec):
    """A LoRA saved by diffusers' save_lora_weights."""

    source: Literal["diffusers"]
    path: SpecPath
    """The .safetensors file; relative to this file."""


class KohyaAdapter(Spec):
    """A LoRA saved by kohya's training scripts, or a LoCon saved by LyCORIS."""

    source: Literal["kohya"]
    path: SpecPath
    """The .safetensors file; relative to this file."""


SiteKind: TypeAlias = Literal["attention", "feed-forward", "projection", "convolution"]


class RandomAdapter(Spec):
    """A LoRA of random weights: its bytes are those of a trained one of the same rank and sites."""

    source: Literal["random"]
    rank: int = Field(ge=1, le=1024)
    """At every site."""
    sites: tuple[SiteKind, ...] = Field(default=("attention",), min_length=1)
    """Kinds of modules in the U-Net's blocks that it changes."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the weights."""


Adapter: TypeAlias = Annotated[
    BuiltinAdapter | PeftAdapter | DiffusersAdapter | KohyaAdapter | RandomAdapter, Field(discriminator="source")
]


class BuiltinInputs(Spec):
    """Evaluation inputs that come with quadbench."""

    source: Literal["builtin"]
    name: Name
    """Their name in the built-in collection."""


class FolderInputs(Spec):
    """Evaluation inputs of your own; docs/recipe.md says what the folder holds."""

    source: Literal["folder"]
    path: SpecPath
    """The folder; relative to this file."""


Inputs: TypeAlias = Annotated[BuiltinInputs | FolderInputs, Field(discriminator="source")]


class _Sampler(Spec):
    steps: int = Field(ge=1, le=100)
    """Sampler steps; each runs the U-Net once, twice where guidance is above 1."""


class OlssSampler(_Sampler):
    """Optimal linear subspace search: few steps fitted to a long DDIM trajectory of this task."""

    scheme: Literal["olss"]


class LcmSampler(_Sampler):
    """Latent consistency: for adapters trained for it, in few steps and mostly without guidance."""

    scheme: Literal["lcm"]


class EdSampler(_Sampler):
    """Euler discrete: no fitting, no special training."""

    scheme: Literal["ed"]


Sampler: TypeAlias = Annotated[OlssSampler | LcmSampler | EdSampler, Field(discriminator="scheme")]


class _Task(Spec):
    name: Name
    """Unique in the recipe."""
    adapter: Name | None
    """An adapter declared under `adapters`, or null for the foundation model as it is."""
    sampler: Sampler
    guidance: float = Field(default=1.0, ge=1.0, le=50.0)
    """Classifier-free guidance; 1 is none and halves the U-Net runs."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the noise; item i of the inputs uses seed + i."""


class TextToImageTask(_Task):
    """A prompt becomes an image. The prompts stand here or in a collection of inputs, whose images are then not used."""

    kind: Literal["text-to-image"]
    prompts: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] | None = None
    """One image each."""
    inputs: Inputs | None = Field(default=None, validate_default=True)
    """Prompts and, where known, what they should look like; instead of `prompts`."""

    @field_validator("inputs")
    @classmethod
    def _either(cls, inputs: Inputs | None, info: ValidationInfo) -> Inputs | None:
        if "prompts" in info.data and (info.data["prompts"] is None) == (inputs is None):
            found = "neither" if inputs is None else "both"
            refuse([Problem(location=(), reason=f"expected either 'prompts' or 'inputs', found {found}")])
        return inputs


class ImageToImageTask(_Task):
    """An image becomes another that keeps its composition."""

    kind: Literal["image-to-image"]
    strength: float = Field(gt=0.0, le=1.0)
    """How much of the noise schedule is run: 1 keeps nothing of the image."""
    inputs: Inputs
    """Images to start from."""


class InpaintTask(_Task):
    """The masked part of an image is replaced."""

    kind: Literal["inpaint"]
    strength: float = Field(default=1.0, gt=0.0, le=1.0)
    """How much of the noise schedule is run: 1 keeps nothing of what is under the mask."""
    inputs: Inputs
    """Images with masks."""


Task: TypeAlias = Annotated[TextToImageTask | ImageToImageTask | InpaintTask, Field(discriminator="kind")]


class W8A16(Spec):
    """All activations in 16 bits."""

    scheme: Literal["w8a16"]
    int8_percent: ClassVar[int] = 0


class W8A8(Spec):
    """All activations in 8 bits."""

    scheme: Literal["w8a8"]
    int8_percent: ClassVar[int] = 100


class Mixed(Spec):
    """Some activations in 8 bits, the others in 16; those take 8 whose rounding was measured to cost least."""

    scheme: Literal["mixed"]
    int8_percent: int = Field(ge=0, le=100)
    """How many of the U-Net's activation encodings have 8 bits: 0 is w8a16, 100 is w8a8."""


class Precision(Spec):
    """Bits of everything in the U-Net."""

    weights: Literal["int8"]
    """The base model's weights, per output channel."""
    activations: Annotated[W8A16 | W8A8 | Mixed, Field(discriminator="scheme")]
    lora: Literal["int16", "int8"]
    """The LoRA inputs, per tensor, zero point 0."""

    @property
    def label(self) -> str:
        """Of the activations, in one word: `w8a16`, `w8a8`, `mixed-30`."""
        scheme = self.activations.scheme
        return f"mixed-{self.activations.int8_percent}" if scheme == "mixed" else scheme


class _Profile(Spec):
    headroom: float = Field(default=1.0, ge=1.0, le=16.0)
    """Factor on every shared LoRA range; above 1 leaves room for adapters yet to come and costs resolution."""
    gauge: bool = True
    """Rescale the rank-one pairs of each adapter into the shared ranges: exact in float, finer in integers."""


class AnchorProfile(_Profile):
    """One adapter's ranges serve them all."""

    scheme: Literal["anchor"]
    adapter: Name | None = None
    """The adapter that sets the ranges; left out, the most sensitive one does, and all together where they are equally so."""


class UnifiedProfile(_Profile):
    """The ranges of all adapters, pooled."""

    scheme: Literal["unified"]


class _Calibration(Spec):
    samples: int = Field(default=2, ge=1, le=1000)
    """Inputs per task that activation ranges are taken from; each gives one sample for every sampler step."""


class JointCalibration(_Calibration):
    """Activation ranges over all tasks and the foundation model without adapter."""

    scheme: Literal["joint"]


class AnchorCalibration(_Calibration):
    """Activation ranges over the tasks of the profile's adapter alone."""

    scheme: Literal["anchor"]


class Distill(Spec):
    """Training of the adapters under the frozen encodings, so that they lose less."""

    adapters: tuple[Name, ...] | None = None
    """Which; left out, all."""
    steps: int = Field(default=300, ge=1, le=100_000)
    """At most so many; it stops where validation no longer improves."""
    batch: int = Field(default=8, ge=1, le=1024)
    """Examples a step."""
    learning_rate: float = Field(default=1e-3, gt=0.0, le=1.0)
    """Adam's, as a share of each tensor's shared range."""
    diffusion_weight: float = Field(default=0.1, ge=0.0, le=100.0)
    """Of the diffusion loss, beside the distance from the float U-Net, which counts 1."""
    patience: int = Field(default=4, ge=1, le=1000)
    """Evaluations without progress before it stops; there is one every 25 steps."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the order of the examples."""


class Quad(Spec):
    """How one set of encodings is made for all adapters."""

    profile: Annotated[AnchorProfile | UnifiedProfile, Field(discriminator="scheme")]
    calibration: Annotated[JointCalibration | AnchorCalibration, Field(discriminator="scheme")]
    distill: Distill | None = None
    """Train the adapters for the shared encodings; null leaves them as they are."""

    @field_validator("calibration")
    @classmethod
    def _anchored(cls, calibration: _Calibration, info: ValidationInfo) -> _Calibration:
        profile = info.data.get("profile")
        if isinstance(calibration, AnchorCalibration) and isinstance(profile, UnifiedProfile):
            refuse([Problem(location=("scheme",), reason="'anchor' needs a profile with scheme 'anchor'; found 'unified'")])
        if isinstance(calibration, AnchorCalibration) and isinstance(profile, AnchorProfile) and profile.adapter is None:
            refuse([Problem(location=("scheme",), reason="'anchor' needs the profile's adapter by name; it is left out")])
        return calibration


class Measure(Spec):
    """How often and in which order everything runs on a device."""

    warmup: int = Field(default=2, ge=0, le=1000)
    """Iterations of each task that are discarded before those that count."""
    iterations: int = Field(default=12, ge=1, le=100_000)
    """Iterations of each task that count; a task with more inputs runs once for each of them."""
    launches: int = Field(default=2, ge=1, le=1000)
    """Fresh processes for each variant: the unit that variants are compared by."""
    switches: int = Field(default=4, ge=0, le=10_000)
    """Task switches timed at the end of a launch, beyond those between the tasks' blocks."""
    order: Literal["abba", "sequential"] = "abba"
    """`abba` alternates the variants so that slow drift of the device hits both alike."""
    threads: int = Field(default=2, ge=1, le=64)
    """Threads within an operator, on the device's CPU."""
    timeout_s: float = Field(default=900.0, gt=0.0)
    """A launch that runs longer is stopped and recorded as failed."""


class Recipe(Spec):
    """A foundation model, its LoRAs, the tasks they do, and how that is quantized and measured."""

    schema_version: Literal[1]
    name: Name
    """Stands in records and reports."""
    foundation: Foundation
    adapters: dict[Name, Adapter]
    """By the name that tasks use. One that no task uses is still built and pushed."""
    tasks: tuple[Task, ...] = Field(min_length=1)
    """What is done with them; a launch runs all of them, in this order."""
    precision: Precision
    quad: Quad
    baselines: tuple[Literal["per-graph"], ...] = ()
    """What the shared graph is compared with: `per-graph` is one U-Net for each task with its adapter merged."""
    measure: Measure = Measure()
    published: Name | None = None
    """A table of a paper whose figures stand beside the measured ones: `quad-table-1` to `quad-table-5`."""

    @field_validator("tasks")
    @classmethod
    def _names_fit(cls, tasks: tuple[Task, ...], info: ValidationInfo) -> tuple[Task, ...]:
        refuse([*_repeated(((index, "name"), task.name) for index, task in enumerate(tasks)), *_undeclared(tasks, info)])
        return tasks

    @field_validator("quad")
    @classmethod
    def _its_adapters_are_declared(cls, quad: Quad, info: ValidationInfo) -> Quad:
        adapters, profile = info.data.get("adapters"), quad.profile
        if adapters is None:
            return quad
        named: list[tuple[Location, str]] = []
        if isinstance(profile, AnchorProfile) and profile.adapter is not None:
            named.append((("profile", "adapter"), profile.adapter))
        if isinstance(profile, AnchorProfile) and not adapters:
            refuse([Problem(location=("profile", "scheme"), reason="'anchor' needs an adapter; the recipe has none")])
        if quad.distill and quad.distill.adapters:
            named += [(("distill", "adapters", i), name) for i, name in enumerate(quad.distill.adapters)]
        unknown = [(location, name) for location, name in named if name not in adapters]
        refuse(Problem(location=at, reason=f"no adapter '{name}'" + near(name, adapters)) for at, name in unknown)
        return quad

    @field_validator("published")
    @classmethod
    def _table_is_known(cls, published: str | None) -> str | None:
        if published is not None:
            try:
                published_table(published)
            except UnknownNameError as error:
                refuse([Problem(location=(), reason=str(error))])
        return published

    @field_validator("baselines")
    @classmethod
    def _baselines_differ(cls, baselines: tuple[str, ...]) -> tuple[str, ...]:
        refuse(_repeated(((index,), baseline) for index, baseline in enumerate(baselines)))
        return baselines


def load_recipe(path_or_name: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from a file, or by its name one that comes with quadbench; an existing file wins.

    `changes` are values to take instead of the file's, by key as `tasks.0.sampler.steps`. INT8_KEY, a share of the activations,
    stands for the scheme that has it.

    Raises: SpecError, UnknownNameError.
    """
    path, changed = Path(path_or_name), dict(_written_out(changes or {}))
    if path.is_file() or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return load(path, Recipe, changed)
    shipped = {file.stem: file for file in sorted(RECIPES_FOLDER.glob("*.yaml"))}
    if path.name not in shipped:
        raise UnknownNameError("recipe", str(path_or_name), shipped)
    return load(shipped[path.name], Recipe, changed)


def recipe_digest(recipe: Recipe) -> str:
    """Sha256 of the recipe as canonical JSON: defaults written out, keys sorted, paths by their last name.

    What lies at a path is for the bundle's digest to tell; where somebody keeps it matters to neither.
    """
    text = json.dumps(recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _written_out(changes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in changes.items():
        if key == INT8_KEY:
            yield key.rpartition(".")[0], {"scheme": "mixed", "int8_percent": value}
        else:
            yield key, value


def _repeated(names: Iterator[tuple[Location, str]]) -> Iterator[Problem]:
    seen: Counter[str] = Counter()
    for location, name in names:
        seen[name] += 1
        if seen[name] == 2:
            yield Problem(location=location, reason=f"'{name}' stands more than once")


def _undeclared(tasks: tuple[Task, ...], info: ValidationInfo) -> Iterator[Problem]:
    adapters = info.data.get("adapters")
    for index, task in enumerate(tasks):
        if adapters is not None and task.adapter is not None and task.adapter not in adapters:
            yield Problem(location=(index, "adapter"), reason=f"no adapter '{task.adapter}'" + near(task.adapter, adapters))
