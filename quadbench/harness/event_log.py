"""Read a launch's event log: check each line against the plan, and collect samples, images and errors."""

import logging
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

from quadbench.artifacts import Component, RunRecord, Sample
from quadbench.artifacts.launch_values import MEMORY_METRICS, value_fault
from quadbench.errors import ArtifactError
from quadbench.harness import events
from quadbench.results.digests import sha256_of
from quadbench.results.layout import Layout
from quadbench.spec import read_file

_COMPONENTS = frozenset(Component)
_RELOADED = _COMPONENTS - {Component.UNET}
_LABELS = {"unet", "adapter", "state", "from", "to", "runs"}
_CLOCK_SLACK = 1.05  # clocks of two machines run at nearly the same rate
_CLOCK_SLACK_NS = 1e9

_ROUNDING, _ROUNDING_NS = 0.001, 1000  # quadbench's harness gives exact sums; other harnesses may round
_MIN_STEP_NS = 1000  # a few thousand instructions; a runtime needs more before its first operator
_OF_TIME = events.IMAGE_METRICS.keys() | {events.STEP_METRICS, events.RELOAD_METRICS}

_Place = tuple[str, str | None, str | None, int | None, int | None, bool]  # metric, component, task, iteration, step, is_warmup

EVENTS = "events.jsonl"
_MAX_EVENTS_BYTES = 2**28  # a hundred times the events of the largest bundled recipe
_RERUN_HINT = "run again for its images; its measured values are complete in the database"

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class EventLog:
    """The events of one launch, checked line by line. `problem` describes the first invalid line; None if all lines are valid.

    `is_over` means that the harness wrote more than its plan allows, and later lines are ignored. `on_image` counts the images so
    far, including warm-up; `task` is the task of the last one.
    """

    expected: events.ExpectedEvents
    header: events.Header | None = None
    samples: list[Sample] = field(default_factory=list)
    images: dict[tuple[str, str], events.ImageEvent] = field(default_factory=dict)
    libraries: dict[str, events.LibraryEvent] = field(default_factory=dict)  # by path
    errors: list[events.ErrorEvent] = field(default_factory=list)
    footer: events.Footer | None = None
    lines: int = 0
    size_bytes: int = 0
    problem: str | None = None
    is_over: bool = False
    on_image: int = 0
    task: str | None = None
    counts: Counter[events.SampleGroup] = field(default_factory=Counter)
    _seen: Counter[_Place] = field(default_factory=Counter)

    def feed(self, line: str) -> bool:
        """Read the next line of the harness's output. Return True if the line reports that an image was generated."""
        on_image = self.on_image
        self.lines += 1
        self.size_bytes += len(line.encode()) + 1
        if not self._is_too_much():
            self._read(line)
        return self.on_image > on_image

    def _read(self, line: str) -> None:
        try:
            event = events.read_event(line)
        except ValueError as error:
            self._note_problem(str(error))
            return
        # For a plan that it refuses, the harness writes only an error and a footer.
        refuses = isinstance(event, events.ErrorEvent) or (isinstance(event, events.Footer) and bool(self.errors))
        if self.footer is not None:
            self._note_problem(f"comes after the footer: {events.shortened(line)}")
        elif (self.header is None) != isinstance(event, events.Header) and not refuses:
            self._note_problem(f"is a {event.event}; expected one header, at the start")
        self._add_event(event)

    def output_fault(self, plan_sha256: str, wall_s: float) -> str | None:
        """Return a message if the output of a harness with exit code 0 is invalid, else None. `wall_s` is the run time in s."""
        if self.problem:
            return self.problem
        if self.header is None or self.footer is None:
            missing = "header" if self.header is None else "footer"
            return f"harness wrote no {missing}, though its exit code is 0{self.early_end()}"
        if self.header.plan_sha256 != plan_sha256:
            return f"harness ran another plan: sha256 {self.header.plan_sha256}, expected {plan_sha256}"
        if self.header.variant != self.expected.variant:
            return f"harness ran the variant '{self.header.variant}', expected '{self.expected.variant}'"
        if self.footer.status != "OK" or self.errors:
            return None  # the errors are the better message
        if self.footer.samples != len(self.samples):
            return f"harness wrote {self.footer.samples} samples, {len(self.samples)} arrived"
        return (
            self.expected.missing_samples(self.counts)
            or self._impossible_time(self.footer.wall_ns, wall_s)
            or self._impossible_image(self.footer.wall_ns)
            or self.wrong_library()
            or self.expected.libraries.find_missing(self.libraries.values())
        )

    def wrong_library(self) -> str | None:
        """Return a message if a loaded library has a wrong path or build id, or had to be pushed but was not; else None."""
        return self.expected.libraries.find_wrong(self.libraries.values())

    def early_end(self) -> str:
        """Return a text that says where the harness's output stopped, for the error message of a launch that ended early."""
        if self.problem:
            return f"; {self.problem}"
        return "" if self.footer else f"; no footer after {self.lines} lines, {len(self.samples)} samples are kept"

    def _is_too_much(self) -> bool:
        expected = self.expected
        if self.lines > expected.max_lines:
            self._end(f"is beyond the {expected.max_lines} lines that the plan allows")
        elif self.size_bytes > expected.max_bytes:
            self._end(f"ends beyond the {expected.max_bytes} bytes that the plan allows")
        return self.is_over

    def _end(self, complaint: str) -> None:
        self._note_problem(f"{complaint}; the harness was stopped")
        self.is_over = True

    def _note_problem(self, complaint: str) -> None:
        if self.problem is None:
            self.problem = f"line {self.lines} of the harness's output {complaint}"

    def _add_event(self, event: events.Event) -> None:
        match event:
            case events.Header():
                self.header = self.header or event
            case events.SampleEvent():
                if fault := _sample_fault(event, self.expected) or self._too_often(event):
                    self._note_problem(f"is a sample of {event.metric} that does not fit the plan: {fault}")
                    return
                self.samples.append(Sample(**event.model_dump(exclude={"event"}, exclude_none=True)))
                if event.metric == "end_to_end_ns":
                    self.on_image, self.task = self.on_image + 1, event.task
            case events.ImageEvent():
                key, path = (event.task, event.item), self.expected.images.get((event.task, event.item))
                if path is None:
                    self._note_problem(f"is an image {event.task}/{event.item}, which is not in the plan")
                elif event.path != path:
                    self._note_problem(f"gives '{event.path}' as the path of image {event.task}/{event.item}, expected '{path}'")
                elif key in self.images:
                    self._note_problem(f"reports image {event.task}/{event.item} a second time")
                else:
                    self.images[key] = event
            case events.LibraryEvent():
                if event.path in self.libraries:
                    self._note_problem(f"reports the library '{event.path}' a second time")
                elif len(self.libraries) == events.MAX_LIBRARIES:
                    self._note_problem(f"is library {events.MAX_LIBRARIES + 1}, at most {events.MAX_LIBRARIES} are read")
                else:
                    self.libraries[event.path] = event
            case events.ErrorEvent():
                self.errors.append(event)
                if len(self.errors) > events.MAX_ERRORS:
                    self._end(f"is error {len(self.errors)}, at most {events.MAX_ERRORS} are read")
            case events.Footer():
                self.footer = self.footer or event

    def _too_often(self, event: events.SampleEvent) -> str | None:
        """Count a sample event and return None. If the plan's maximum for its metric and task is reached, return a message."""
        if event.metric in MEMORY_METRICS:
            return None
        group = events.SampleGroup(event.metric, event.task, bool(event.is_warmup))
        most = self.expected.counts.get(group, 0) or self.expected.possible.get(group, 0)
        there, place = self.counts[group], None
        if most and event.task is not None and event.iteration is not None:
            place = (event.metric, event.component, event.task, event.iteration, event.step, group.is_warmup)
            most, there = self.expected.times_of(event.task, group.is_warmup, event.iteration), self._seen[place]
        if there >= most:
            where = f", iteration {event.iteration}" if place else ""
            return f"it is number {there + 1} of {group}{where}, expected at most {most}"
        self.counts[group] += 1
        if place:
            self._seen[place] += 1
        return None

    def _impossible_time(self, wall_ns: int, wall_s: float) -> str | None:
        """Return a message if harness time `wall_ns` exceeds host time `wall_s`, or a sample exceeds `wall_ns`; else None."""
        if wall_ns > wall_s * 1e9 * _CLOCK_SLACK + _CLOCK_SLACK_NS:
            return f"harness says that it ran for {wall_ns / 1e9:.3f} s; this machine measured {wall_s:.3f} s"
        longest = max((s for s in self.samples if s.metric.endswith("_ns")), key=lambda sample: sample.value, default=None)
        if longest is None or longest.value <= wall_ns:
            return None
        of_task = f" of task '{longest.task}'" if longest.task else ""
        return f"harness reports {longest.metric} {longest.value:.0f}{of_task} in a launch of {wall_ns} ns; expected less"

    def _impossible_image(self, wall_ns: int) -> str | None:
        """Return a message if image times are too short, differ from their parts' sum, or total over `wall_ns`; else None."""
        whole: defaultdict[tuple[str, int | None, bool], float] = defaultdict(float)
        parts = whole.copy()
        for sample in self.samples:
            if sample.task is not None and sample.metric in _OF_TIME:
                place = sample.task, sample.iteration, sample.is_warmup
                (whole if sample.metric == "end_to_end_ns" else parts)[place] += sample.value
        for (task, iteration, is_warmup), took_ns in whole.items():
            together_ns = parts[task, iteration, is_warmup]
            image = f"harness says that image {iteration} of task '{task}' took {took_ns:.0f} ns"
            if abs(took_ns - together_ns) > max(_ROUNDING_NS, _ROUNDING * took_ns):
                return f"{image}, its parts and the residual {together_ns:.0f} ns; expected the same"
            if took_ns < (least_ns := _MIN_STEP_NS * self.expected.tasks[task].steps):
                return f"{image}; expected at least {least_ns}, as each of its steps runs a graph"
        if (total := sum(whole.values())) > wall_ns:
            return f"harness says that its images took {total:.0f} ns in a launch of {wall_ns} ns; expected less"
        return None


def _sample_fault(event: events.SampleEvent, expected: events.ExpectedEvents) -> str | None:
    """Return a message if a sample event's metric, value, task, component or labels are invalid, else None."""
    if event.metric not in events.KNOWN_METRICS:
        return f"unknown metric; known: {', '.join(sorted(events.KNOWN_METRICS))}"
    if fault := value_fault(event.metric, event.value):
        return f"its value {fault}"
    if event.metric.endswith("_ns") and event.value > expected.timeout_s * 1e9:
        return f"its value is {event.value:g}, expected at most the {expected.timeout_s:g} s that a launch may take"
    if event.task is not None and event.task not in expected.tasks:
        return f"task '{event.task}', expected one of {', '.join(expected.tasks)}"
    if event.component is not None and event.component not in _COMPONENTS:
        return f"component '{event.component}', expected one of {', '.join(Component)}"
    for key, word in (event.labels or {}).items():
        if key not in _LABELS or word not in expected.words:
            return f"label {key} '{word}' is not a name in the plan"
    return _place_fault(event, expected)


def _place_fault(event: events.SampleEvent, expected: events.ExpectedEvents) -> str | None:
    """Return a message if a sample event's task, iteration, sampler step or input does not match the plan; else None."""
    is_of_image = event.metric in events.IMAGE_METRICS or event.metric in {events.STEP_METRICS, events.RELOAD_METRICS}
    if event.task is None:
        return "no task" if is_of_image else None
    task = expected.tasks[event.task]
    if event.item is not None and event.item not in task.items:
        return f"item '{event.item}' is not in task '{event.task}'"
    if not is_of_image:
        return None if event.iteration is None and event.step is None else "an iteration or a step, expected neither"
    if event.iteration is None:
        return "no iteration"
    if (event.step is None) == (event.metric == events.STEP_METRICS) or (event.step is not None and event.step >= task.steps):
        wanted = f"one of {task.steps} steps" if event.metric == events.STEP_METRICS else "none"
        return f"step {event.step}, expected {wanted}"
    item = task.items[event.iteration % len(task.items)]
    if event.item is not None and event.item != item:
        return f"item '{event.item}' in iteration {event.iteration}, expected '{item}'"
    if event.metric == events.RELOAD_METRICS:
        return None if event.component in _RELOADED else f"component '{event.component}', which is never reloaded"
    component = Component.UNET if event.metric == events.STEP_METRICS else events.IMAGE_METRICS[event.metric]
    return None if event.component == component else f"component '{event.component}', expected '{component or 'none'}'"


def check_image_contents(record: RunRecord, layout: Layout) -> None:
    """Raise ArtifactError if a launch's image does not have the sha256 in its event. Call this before images are shown or scored.

    Missing images are ignored here. If the events file is missing, a warning is logged and nothing is checked.
    """
    if not record.images:
        return
    told_in = layout.launch(record.run_id, record.device.address, record.variant, record.launch) / EVENTS
    images = {name: path for name, relative in record.images.items() if (path := layout.file(relative)).is_file()}
    if not images:
        return
    if not told_in.exists():
        log.warning("'%s' is missing, so the images beside it are not checked", told_in)
        return
    announced: dict[str, list[str]] = {}  # a failed launch may announce an image several times
    for line in read_file(told_in, fault=ArtifactError, hint=_RERUN_HINT, max_bytes=_MAX_EVENTS_BYTES).splitlines():
        with suppress(ValueError):
            if b'"image"' in line and isinstance(event := events.read_event(line.decode()), events.ImageEvent):
                announced.setdefault(f"{event.task}/{event.item}", []).append(event.sha256)
    for name, path in images.items():
        if name not in announced:
            raise ArtifactError(f"'{told_in}' was changed after it was written: it lists no image {name}", hint=_RERUN_HINT)
        if (sha256 := sha256_of(path)) not in announced[name]:
            difference = f"its sha256 is {sha256}, expected {' or '.join(announced[name])}, as recorded in '{told_in}'"
            raise ArtifactError(f"'{path}' was changed after it was generated: {difference}", hint=_RERUN_HINT)
