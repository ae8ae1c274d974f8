"""Recipes: the pydantic model of a recipe's YAML file, with its loading, digest and JSON Schema."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml
from pydantic import Field, ValidationInfo, field_validator

from quadbench.errors import UnknownNameError
from quadbench.host import shipped_folder
from quadbench.recipe.published import published_table
from quadbench.recipe.settings import MAX_SWITCHES, AnchorProfile, Gate, Precision, Quad, Runtime, TaskSequence
from quadbench.recipe.tasks import Adapter, Foundation, Sampler, Task, TextToImageTask, fault_of_strength
from quadbench.spec import Name, Problem, Spec, is_file, load, refuse
from quadbench.spec.spec_model import Override, near
from quadbench.spec.yaml_document import Location

RECIPES_FOLDER = shipped_folder("recipes")
INT8_KEY = "precision.activations.int8"
_SCHEME_KEY = ".precision.activations.scheme"
Baseline: TypeAlias = Literal["per-graph", "resident", "context-shared", "patched", "merged-at-load"]
_OF_OWN_GRAPHS = ("resident", "context-shared", "patched")  # need the graphs of per-graph
_TASKS = "[{name: mine, kind: text-to-image, adapter: mine, sampler: {scheme: olss, steps: 8}, prompts: [a red apple]}]"
_MAX_USES = 256  # the most adapters, and the most tasks, of a recipe: papers have up to eight


class DeviceSettings(Spec):
    """Samplers and precision that replace a recipe's for one device profile. The profile gets its own encodings and bundle."""

    samplers: dict[Name, Sampler] = Field(default_factory=dict)
    """Other samplers for tasks, by task name. The default is none: all tasks keep their samplers."""
    precision: Precision | None = None
    """Other bit widths of the U-Net. The default is null: those of the recipe."""

    def task_for(self, task: Task) -> Task:
        """Return a copy of a task with its sampler for this device profile. By default, the task's own sampler stays."""
        return task.model_copy(update={"sampler": self.samplers.get(task.name, task.sampler)})


def sampler_problems(devices: Mapping[str, DeviceSettings], tasks: Sequence[Task]) -> Iterator[Problem]:
    """Yield a Problem for each sampler in `devices` whose task is unknown or has a strength too low for one sampler step."""
    named = {task.name: task for task in tasks}
    for profile, settings in devices.items():
        for name, sampler in settings.samplers.items():
            location, task = (profile, "samplers", name), named.get(name)
            if task is None:
                yield Problem(location=location, reason=f"no task '{name}'" + near(name, named))
            elif not isinstance(task, TextToImageTask) and (fault := fault_of_strength(task.strength, sampler)):
                yield Problem(location=location, reason=f"the task's strength does not fit: {fault}")


class Measure(Spec):
    """Settings of measurement on a device: the number and order of launches (processes), and the iterations of each task."""

    warmup: int = Field(default=2, ge=0, le=1000)
    """The number of discarded warm-up iterations of each task, 0 to 1000. The default is 2."""
    iterations: int = Field(default=12, ge=1, le=100_000)
    """The number of measured iterations of each task, 1 to 100000, but at least one for each input. The default is 12."""
    launches: int = Field(default=2, ge=1, le=1000)
    """The number of launches (fresh processes) of each variant, 1 to 1000. Variants are compared by launch. The default is 2."""
    switches: int = Field(default=4, ge=0, le=MAX_SWITCHES)
    """The number of task switches, 0 to 10000, that are timed at the end of a launch, after the tasks' blocks. They go to all
    tasks in turn, with one image each. The default is 4."""
    sequence: TaskSequence = ()
    """The tasks, at most 10000, of the single images at the end of a launch, instead of `switches`; or the path of a trace, a
    text file with one task name per line. The default is none: all tasks in turn."""
    order: Literal["abba", "sequential"] = "abba"
    """`abba` alternates the variants, so that slow device drift affects both equally; `sequential` runs one after the other.
    The default is abba."""
    timeout_s: float = Field(default=900.0, gt=0.0, le=604_800.0)
    """The time in seconds, above 0 and up to 604800, a week, after which a launch is stopped and recorded as failed.
    The default is 900."""
    gate: Gate = Gate()
    """The limits on a device's state before and after a launch. The default has the default of every field."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """A recipe's settings for the measurement of a bundle. The defaults apply to a bundle that comes without a recipe.

    `text` is the recipe as YAML without defaults; `swept` are the recipe's values that a sweep has set.
    """

    measure: Measure = field(default_factory=Measure)
    runtime: Runtime = field(default_factory=Runtime)
    baselines: tuple[Baseline, ...] = ("per-graph",)
    published: str | None = None
    text: str | None = None
    swept: dict[str, str] = field(default_factory=dict)


class Recipe(Spec):
    """A benchmark: a foundation model, its LoRA adapters, the tasks, and how the model is quantized and measured."""

    schema_version: Literal[1]
    """The number of the file's format: 1."""
    name: Name = Field(examples=["mine"])
    """The name in records and reports: lower-case letters and digits in groups joined by hyphens, at most 64 characters."""
    foundation: Foundation = Field(examples=["{source: diffusers, path: my-model}"])
    """The model whose U-Net all tasks share."""
    adapters: dict[Name, Adapter] = Field(max_length=_MAX_USES, examples=["{mine: {source: peft, path: my-lora}}"])
    """The LoRA adapters, at most 256, by name. An adapter that no task uses is still built and pushed."""
    tasks: tuple[Task, ...] = Field(min_length=1, max_length=_MAX_USES, examples=[_TASKS])
    """The tasks, 1 to 256, that a launch runs in this order."""
    precision: Precision = Field(examples=["{weights: int8, activations: {scheme: w8a16}, lora: int16}"])
    """The bit widths to which the U-Net is quantized."""
    quad: Quad = Field(examples=["{profile: {scheme: unified}, calibration: {scheme: joint}}"])
    """The settings for the quantization encodings that all adapters share."""
    baselines: tuple[Baseline, ...] = ()
    """The variants that the shared graph is compared with: `per-graph` is one U-Net for each task with its adapter merged,
    loaded at each switch; `resident` has the same graphs, all of them in memory; `context-shared` has them in one context of
    Qualcomm's HTP, which stores equal weights once; `patched` has one of them and a patch for each other; `merged-at-load` is
    the base alone, loaded at each switch with the task's adapter added to its weights on the device. The default is none."""
    runtime: Runtime = Runtime()
    """The settings of threads and memory on devices. The default has the default of every field."""
    measure: Measure = Measure()
    """The number and order of launches and iterations. The default has the default of every field."""
    devices: dict[Name, DeviceSettings] = Field(default_factory=dict)
    """Other samplers or another precision for devices of some profiles, by profile name. The default is none."""
    published: Name | None = None
    """The paper's table, `quad-table-1` to `quad-table-5`, that reports show beside measured ones. The default is null: none."""

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

    @field_validator("measure")
    @classmethod
    def _sequence_is_of_tasks(cls, measure: Measure, info: ValidationInfo) -> Measure:
        tasks = [task.name for task in info.data.get("tasks", ())]
        unknown = [(index, name) for index, name in enumerate(measure.sequence) if tasks and name not in tasks]
        refuse(Problem(location=("sequence", index), reason=f"no task '{name}'" + near(name, tasks)) for index, name in unknown)
        return measure

    @field_validator("devices")
    @classmethod
    def _devices_fit(cls, devices: dict[str, DeviceSettings], info: ValidationInfo) -> dict[str, DeviceSettings]:
        profiles: Collection[str] = (info.context or {}).get("profiles") or devices
        unknown = [name for name in devices if name not in profiles]
        problems = [Problem(location=(name,), reason=f"no device profile '{name}'" + near(name, profiles)) for name in unknown]
        refuse([*problems, *(sampler_problems(devices, info.data["tasks"]) if "tasks" in info.data else ())])
        return devices

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
        needy = [name for name in baselines if name in _OF_OWN_GRAPHS]
        if needy and "per-graph" not in baselines:
            refuse([Problem(location=(), reason=f"{needy[0]} needs per-graph too, with which the shared graph is compared")])
        return baselines

    @property
    def terms(self) -> RunSettings:
        """Return a RunSettings: measurement, runtime, baselines, published table, and the recipe as YAML without defaults."""
        text = yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True, width=120)
        return RunSettings(
            measure=self.measure, runtime=self.runtime, baselines=self.baselines, published=self.published, text=text
        )

    def for_device(self, profile: str | None) -> "Recipe":
        """Return a copy with a device profile's samplers and precision, if `devices` has them. The copy's `devices` is empty."""
        own = self.devices.get(profile or "", DeviceSettings())
        tasks = tuple(own.task_for(task) for task in self.tasks)
        return self.model_copy(update={"tasks": tasks, "precision": own.precision or self.precision, "devices": {}})


def load_recipe(
    path_or_name: str | Path, changes: Mapping[str, Any] | None = None, *, profiles: Collection[str] | None = None
) -> Recipe:
    """Read a recipe from a file, or a built-in recipe by its name; an existing file takes precedence.

    `changes` override values of the file, by keys such as `tasks.0.sampler.steps`. A change of INT8_KEY, the 8-bit share, also
    selects the `mixed` scheme; a change of the scheme alone drops the share. `profiles` are the device profiles that `devices`
    may name; None allows any.

    Raises:
        SpecError: the file or a change is invalid.
        UnknownNameError: no built-in recipe has this name.
    """
    return load(recipe_file(path_or_name), Recipe, _written_out(changes or {}), {"profiles": profiles})


def recipe_file(path_or_name: str | Path) -> Path:
    """Return the path of a recipe's file, given the name of a built-in recipe or a path, which need not exist.

    Raises:
        UnknownNameError: no built-in recipe has this name.
    """
    path = Path(path_or_name)
    if is_file(path) or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    built_in = built_in_recipes()
    if path.name not in built_in:
        raise UnknownNameError("recipe", str(path_or_name), built_in)
    return built_in[path.name]


def built_in_recipes() -> dict[str, Path]:
    """Return a dict from the names of the recipes that come with quadbench to their files, sorted by name."""
    return {file.stem: file for file in sorted(RECIPES_FOLDER.glob("*.yaml"))}


def recipe_digest(recipe: Recipe) -> str:
    """Return the SHA-256 of a recipe as JSON with defaults and sorted keys. Of each path, only the last component counts.

    The content of files counts in the bundle's digest; the folders that they lie in count in neither.
    """
    text = json.dumps(recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _written_out(changes: Mapping[str, Any]) -> Iterator[Override]:
    for key, value in changes.items():
        written = f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        activations, _, _ = key.rpartition(".")
        if f".{key}".endswith(f".{INT8_KEY}"):
            yield Override(key=activations, value={"scheme": "mixed", "int8_percent": value}, written=written)
        elif f".{key}".endswith(_SCHEME_KEY) and value != "mixed":  # whose share stands in the file
            yield Override(key=activations, value={"scheme": value}, written=written)
        else:
            yield Override(key=key, value=value, written=written)


def _repeated(names: Iterator[tuple[Location, str]]) -> Iterator[Problem]:
    seen: Counter[str] = Counter()
    for location, name in names:
        seen[name] += 1
        if seen[name] == 2:
            yield Problem(location=location, reason=f"'{name}' occurs more than once")


def _undeclared(tasks: tuple[Task, ...], info: ValidationInfo) -> Iterator[Problem]:
    adapters = info.data.get("adapters")
    for index, task in enumerate(tasks):
        for name in task.adapter:
            if adapters is not None and name not in adapters:
                yield Problem(location=(index, "adapter"), reason=f"no adapter '{name}'" + near(name, adapters))
