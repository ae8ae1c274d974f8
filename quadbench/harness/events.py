"""Parse the harness's JSON event lines, and derive the events that a harness plan requires: samples, images, loaded libraries."""

import posixpath
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from quadbench.artifacts import Component, Variant
from quadbench.artifacts.bundle import TaskKind
from quadbench.artifacts.kit import Role, role_of
from quadbench.artifacts.launch_values import MEMORY_METRICS
from quadbench.artifacts.run_record import SequenceBlock
from quadbench.artifacts.safe_text import is_plain, one_line
from quadbench.recipe.tasks import NO_TASK
from quadbench.spec import first_problem

_SHOWN_CHARACTERS = 80
_WORD_CHARACTERS = 200
_PATH_CHARACTERS = 4096
_MAX_LABELS = 8

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]

MAX_ERRORS = 20
MAX_LIBRARIES = 256  # limit on the libraries that the harness reports (libraries.cpp)
_MEMORY_PERIOD_S = 0.04  # between two memory samples of the harness (plan.hpp)
_MEMORY_METRICS = 2  # rss_bytes, pss_bytes
_MAX_LAUNCH_S = 7 * 86400.0  # a longer timeout allows no more lines than this
_LINE_BYTES = 1024  # average limit: four times the size of a sample
_SPARE_BYTES = 2**20
_STATES = {"cold", "warm", "preloaded", "resident"}
_RUNS = {"1", "2"}
_MERGE = "merge"  # label of the graph that merges adapters into a U-Net's weights

IMAGE_METRICS: Mapping[str, str | None] = {
    "text_encoder_ns": Component.TEXT_ENCODER,
    "vae_encoder_ns": Component.VAE_ENCODER,
    "vae_decoder_ns": Component.VAE_DECODER,
    "end_to_end_ns": None,
    "residual_ns": None,
}
"""Metrics that each image has once, with their component."""
STEP_METRICS = "unet_ns"
RELOAD_METRICS = "reload_ns"
"""Metric of each graph that has to be reloaded for an image because a memory budget had unloaded it."""
BLOCK_END_METRICS = frozenset(
    {
        "peak_rss_bytes", "adapter_cache_bytes",
        "rss_anonymous_bytes", "rss_graphs_bytes", "rss_libraries_bytes", "rss_dma_buf_bytes", "rss_other_bytes",
    }
)  # fmt: skip
"""Metrics that each block has once, at its end."""
KNOWN_METRICS = frozenset(
    {
        *IMAGE_METRICS, STEP_METRICS, RELOAD_METRICS, *BLOCK_END_METRICS, *MEMORY_METRICS,
        "session_load_ns", "adapter_load_ns", "adapter_preload_ns", "adapter_merge_ns", "patch_ns", "switch_ns", "first_unet_ns",
        "load_peak_rss_bytes", "dma_buf_bytes", "memory_sampling_ns",
    }
)  # fmt: skip


def _plain(text: str) -> str:
    if not is_plain(text):
        raise ValueError("it has unprintable characters")
    return text


def _whole_path(text: str) -> str:
    """Resolve `.`, `..` and double slashes in a path that a library loader reported. Raise ValueError if only `/` remains."""
    path = posixpath.normpath("/" + text.lstrip("/"))
    if path == "/":
        raise ValueError("it does not name a file")
    return path


Word = Annotated[str, Field(max_length=_WORD_CHARACTERS), AfterValidator(_plain)]


class _Event(BaseModel):
    # Strict: numbers have to be finite JSON numbers, not numeric strings or booleans.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class Header(_Event):
    """The first event that the harness writes in a launch: versions of harness and runtime, sha256 of the plan, CPU and variant.

    `peak_reset` is true if the kernel can reset peak memory; if not, all peaks count from the start of the process.
    """

    event: Literal["header"]
    schema_version: Annotated[int, Field(ge=1, le=1)]
    harness_version: Word
    build_type: Word
    commit: Word
    runtime_version: Word
    plan_sha256: Digest
    variant: Word
    cpu: Word
    started_at: Word
    peak_reset: bool


class SampleEvent(_Event):
    """A measured value from the harness: metric, value, and the task, component, iteration and step that it belongs to."""

    event: Literal["sample"]
    metric: Word
    value: float
    task: Word | None = None
    component: Word | None = None
    iteration: Count | None = None
    step: Count | None = None
    item: Word | None = None
    is_warmup: bool | None = None
    labels: Annotated[dict[Word, Word], Field(max_length=_MAX_LABELS)] | None = None


class ImageEvent(_Event):
    """The event for an image file that the harness wrote on the device, with the file's path and sha256."""

    event: Literal["image"]
    task: Word
    item: Word
    path: Annotated[str, Field(max_length=_PATH_CHARACTERS), AfterValidator(_plain)]
    sha256: Digest


class LibraryEvent(_Event):
    """The event for a shared library that the loader mapped into the harness process. `build_id` is the ELF build id, if any."""

    event: Literal["library"]
    path: Annotated[str, Field(max_length=_PATH_CHARACTERS, pattern="^/"), AfterValidator(_plain), AfterValidator(_whole_path)]
    build_id: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){1,32}$")] | None


class ErrorEvent(_Event):
    """The event for a failure in the harness. A message of any length and with any characters is accepted."""

    event: Literal["error"]
    message: str
    where: str | None = None


class Footer(_Event):
    """The last event of a launch: its final status, the number of samples, and its duration in ns."""

    event: Literal["footer"]
    status: Literal["OK", "FAILED"]
    samples: Count
    wall_ns: Count


Event = Header | SampleEvent | ImageEvent | LibraryEvent | ErrorEvent | Footer
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def read_event(line: str) -> Event:
    try:
        return _EVENT.validate_json(line)
    except ValidationError as error:
        raise ValueError(f"is not an event ({one_line(first_problem(error), _WORD_CHARACTERS)}): {shortened(line)}") from error


def shortened(line: str) -> str:
    return repr(line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}...")


@dataclass(frozen=True, kw_only=True)
class DeployedLibrary:
    """A library pushed to the device: file name, device paths of the file and of all links to it, and ELF build id or None."""

    name: str
    paths: tuple[str, ...]
    build_id: str | None


@dataclass(frozen=True, kw_only=True)
class ExpectedLibraries:
    """The libraries that were pushed to the device (`deployed`), and the paths of those that the harness must open (`opened`)."""

    deployed: tuple[DeployedLibrary, ...]
    opened: tuple[str, ...]

    def find_wrong(self, loaded: Iterable[LibraryEvent]) -> str | None:
        """Return a message if a loaded library has a wrong path or build id, or had to be pushed but was not; else None."""
        return next(filter(None, map(self._fault, loaded)), None)

    def find_missing(self, loaded: Iterable[LibraryEvent]) -> str | None:
        """Return a message if the harness never loaded a library that the plan names; else None."""
        there = {posixpath.normpath(library.path) for library in loaded}
        for path in self.opened:
            library = self._at(path)
            if there.isdisjoint(library.paths if library else (path,)):
                return f"harness never loaded '{path}', which the plan names"
        return None

    def name_of(self, loaded: LibraryEvent) -> str:
        """Return a loaded library's file name. If quadbench pushed it under another name, return the original name."""
        library = self._at(posixpath.normpath(loaded.path))
        return library.name if library else posixpath.basename(loaded.path)

    def _fault(self, loaded: LibraryEvent) -> str | None:
        path, is_build = posixpath.normpath(loaded.path), f"'{loaded.path}' (build id {loaded.build_id or 'none'})"
        if library := self._at(path):
            if library.build_id in (None, loaded.build_id):
                return None
            return f"harness loaded {is_build}; the '{library.name}' that was pushed there has build id {library.build_id}"
        name = posixpath.basename(path)
        pushed = next((library for library in self.deployed if library.name == name), None)
        if pushed:
            return f"harness loaded {is_build} in place of '{pushed.paths[0]}' (build id {pushed.build_id or 'none'})"
        if role_of(name) is Role.SUPPORT or path in self.opened:
            return None
        opened = ", ".join(f"'{path}'" for path in self.opened)
        return f"harness loaded {is_build}, a {role_of(name)} that was not pushed; the plan opens {opened}"

    def _at(self, path: str) -> DeployedLibrary | None:
        return next((library for library in self.deployed if path in library.paths), None)


def expected_libraries(plan: Mapping[str, Any], placed: Iterable[DeployedLibrary]) -> ExpectedLibraries:
    """Collect the library paths in a harness plan. Return them with the pushed libraries `placed` as an ExpectedLibraries."""
    provider = plan["runtime"].get("execution_provider", {})
    runtime = (plan["runtime"]["library"], plan["runtime"].get("dispatch"))
    opened = (*runtime, provider.get("library"), provider.get("options", {}).get("backend_path"))
    return ExpectedLibraries(deployed=tuple(placed), opened=tuple(filter(None, opened)))


class SampleGroup(NamedTuple):
    """The key by which a launch's samples are counted: metric, task, and whether they belong to warm-up images."""

    metric: str
    task: str | None
    is_warmup: bool

    def __str__(self) -> str:
        of_task = f" of task '{self.task}'" if self.task else ""
        return f"{self.metric}{of_task}{', warm-up' if self.is_warmup else ''}"


@dataclass(frozen=True, kw_only=True)
class ExpectedTask:
    """A task of a harness plan: evaluation input names, sampler step count, and whether the inputs include an image."""

    items: tuple[str, ...]
    steps: int
    has_input: bool


@dataclass(frozen=True, kw_only=True)
class ExpectedEvents:
    """The events that a harness plan requires in one launch: samples, images, and the libraries that must be loaded.

    `counts` has the required number of samples of each SampleGroup, and `possible` the greatest number of optional samples.
    """

    variant: str
    tasks: Mapping[str, ExpectedTask]
    counts: Mapping[SampleGroup, int]
    possible: Mapping[SampleGroup, int]
    runs: Mapping[tuple[str, bool], Sequence[int]]  # (task, is_warmup): iterations of its blocks, ascending
    images: Mapping[tuple[str, str], str]  # (task, input): path of the generated image on the device
    words: frozenset[str]  # allowed values of labels
    libraries: ExpectedLibraries
    timeout_s: float

    @property
    def max_lines(self) -> int:
        readings = min(self.timeout_s, _MAX_LAUNCH_S) / _MEMORY_PERIOD_S + 1
        planned = sum(self.counts.values()) + sum(self.possible.values()) + len(self.images) + MAX_LIBRARIES
        return planned + MAX_ERRORS + 2 + _MEMORY_METRICS * int(readings)

    @property
    def max_bytes(self) -> int:
        return self.max_lines * _LINE_BYTES + _SPARE_BYTES

    def times_of(self, task: str, is_warmup: bool, iteration: int) -> int:
        """Return how many of a task's blocks have more than `iteration` iterations (warm-up iterations if `is_warmup`)."""
        blocks = self.runs.get((task, is_warmup), ())
        return len(blocks) - bisect_right(blocks, iteration)

    def missing_samples(self, arrived: Mapping[SampleGroup, int]) -> str | None:
        """Return a message if a SampleGroup's count in `arrived` is lower than the harness plan requires, else None."""
        missing = [(group, arrived.get(group, 0), count) for group, count in self.counts.items() if arrived.get(group, 0) < count]
        if not missing:
            return None
        group, there, count = missing[0]
        more = f"; samples of {len(missing) - 1} other kinds are missing too" if len(missing) > 1 else ""
        return f"harness gave {there} of the {count} samples of {group} that the plan requires{more}"


def expected_events(
    plan: Mapping[str, Any], steps: Mapping[str, int], timeout_s: float, libraries: Iterable[DeployedLibrary]
) -> ExpectedEvents:
    """Return ExpectedEvents for a harness plan: samples, images and libraries. `steps` maps task names to sampler step counts."""
    tasks = {
        name: ExpectedTask(
            items=tuple(item["name"] for item in task["items"]),
            steps=steps[name],
            has_input=task["kind"] != TaskKind.TEXT_TO_IMAGE,
        )
        for name, task in plan["tasks"].items()
    }
    blocks = [SequenceBlock(**block) for block in plan["sequence"]]
    runs: dict[tuple[str, bool], list[int]] = {}
    for block in blocks:
        runs.setdefault((block.task, True), []).append(block.warmup)
        runs.setdefault((block.task, False), []).append(block.iterations)
    folder = plan["images"]
    return ExpectedEvents(
        variant=plan["variant"],
        tasks=tasks,
        counts=_counts(plan, tasks, blocks),
        possible=_possible(plan, tasks, blocks),
        runs={key: sorted(lengths) for key, lengths in runs.items()},
        images={(name, item): f"{folder}/{name}/{item}.png" for name, task in tasks.items() for item in task.items}
        if folder
        else {},
        words=frozenset({NO_TASK, *plan["unets"], *plan["adapters"], *plan["mixes"], *tasks, *_STATES, *_RUNS, _MERGE}),
        libraries=expected_libraries(plan, libraries),
        timeout_s=timeout_s,
    )


def _shared_graphs(plan: Mapping[str, Any]) -> int:
    """Return the number of graphs that all tasks share: encoders of prompts, VAE encoder, VAE decoder."""
    components = plan["components"]
    return len(components.keys() - {"encoders"}) + len(components["encoders"])


def _counts(plan: Mapping[str, Any], tasks: Mapping[str, ExpectedTask], blocks: Sequence[SequenceBlock]) -> Counter[SampleGroup]:
    """Return the number of samples that a launch must write, as a Counter with keys of metric, task and warm-up flag."""
    variant = Variant(plan["variant"])
    of_launch = 1 if variant is Variant.MERGED_AT_LOAD else len(plan["unets"])  # merged-at-load: the merge graph
    graphs = 0 if variant.has_unet_per_task and variant.loads_at_switch else of_launch
    counts = Counter(
        {
            SampleGroup("session_load_ns", None, False): _shared_graphs(plan) + graphs,
            SampleGroup("load_peak_rss_bytes", None, False): 1,
            SampleGroup("memory_sampling_ns", None, False): 1,
        }
    )
    before: str | None = None
    for block in blocks:
        if block.task != before:
            has_adapter = plan["tasks"][block.task]["adapter"] is not None
            counts.update(_switch(block.task, variant, has_adapter=has_adapter))
            if plan["tasks"][block.task].get("unet") in plan.get("patches", {}):
                counts[SampleGroup("patch_ns", block.task, False)] += 1
        before = block.task
        for group, count in _images(block, tasks[block.task]):
            counts[group] += count
        counts.update(SampleGroup(metric, block.task, False) for metric in BLOCK_END_METRICS)
    return counts


def _possible(
    plan: Mapping[str, Any], tasks: Mapping[str, ExpectedTask], blocks: Sequence[SequenceBlock]
) -> Counter[SampleGroup]:
    counts: Counter[SampleGroup] = Counter()
    reloads = _shared_graphs(plan) if plan["runtime"].get("memory_budget_bytes") else 0
    for block in blocks:
        counts[SampleGroup("dma_buf_bytes", block.task, False)] += 1
        counts[SampleGroup("adapter_preload_ns", block.task, False)] += 1
        for is_warmup, count in ((True, block.warmup), (False, block.iterations)):
            counts[SampleGroup(RELOAD_METRICS, block.task, is_warmup)] += count * reloads
    return counts


def _switch(task: str, variant: Variant, *, has_adapter: bool) -> Iterator[SampleGroup]:
    if variant.loads_at_switch:
        yield SampleGroup("session_load_ns", task, False)
    if has_adapter:
        yield SampleGroup("adapter_load_ns", task, False)
        if variant is Variant.MERGED_AT_LOAD:
            yield SampleGroup("adapter_merge_ns", task, False)
    for metric in ("switch_ns", "load_peak_rss_bytes", "first_unet_ns"):
        yield SampleGroup(metric, task, False)


def _images(block: SequenceBlock, task: ExpectedTask) -> Iterator[tuple[SampleGroup, int]]:
    for is_warmup, count in ((True, block.warmup), (False, block.iterations)):
        if count:
            for metric in IMAGE_METRICS:
                if task.has_input or metric != "vae_encoder_ns":
                    yield SampleGroup(metric, block.task, is_warmup), count
            yield SampleGroup(STEP_METRICS, block.task, is_warmup), count * task.steps
