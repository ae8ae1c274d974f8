"""What a harness says is held against its plan: what is wrong, too much, too little or impossible is found and not kept."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.sentences import reads, says

from quadbench.artifacts import Sample
from quadbench.harness.event_log import EventLog
from quadbench.harness.events import (
    BLOCK_END_METRICS,
    MAX_ERRORS,
    MAX_LIBRARIES,
    DeployedLibrary,
    ExpectedEvents,
    expected_events,
)

RUNTIME = DeployedLibrary(
    name="libonnxruntime.so", paths=("/root/kits/k/libonnxruntime.so", "/root/objects/r"), build_id="ab" * 20
)
PLAN: dict[str, Any] = {
    "variant": "shared",
    "runtime": {"library": RUNTIME.paths[0]},
    "components": {"encoders": {"text_encoder": {}}, "vae_encoder": {}, "vae_decoder": {}},
    "unets": {"base": {}},
    "adapters": {"restyle": {}},
    "mixes": {},
    "tasks": {
        "restyle": {"kind": "image-to-image", "adapter": "restyle", "items": [{"name": "000"}, {"name": "001"}]},
        "draw": {"kind": "text-to-image", "adapter": None, "items": [{"name": "000"}]},
    },
    "sequence": [
        {"task": "restyle", "warmup": 1, "iterations": 3},
        {"task": "draw", "warmup": 1, "iterations": 2},
        {"task": "restyle", "warmup": 0, "iterations": 1},
    ],
    "images": "/root/runs/r/images",
}
STEPS = {"restyle": 2, "draw": 3}
WALL_S = 10.0
Line = dict[str, Any]


def expected() -> ExpectedEvents:
    return expected_events(PLAN, STEPS, timeout_s=60.0, libraries=[RUNTIME])


def sample(metric: str, value: float = 1_000_000, **words: Any) -> Line:
    return {"event": "sample", "metric": metric, "value": value, **words}


def images(block: Line) -> Iterator[Line]:
    """The images of a block, as the harness measures them."""
    name, task = block["task"], PLAN["tasks"][block["task"]]
    for is_warmup, count in ((True, block["warmup"]), (False, block["iterations"])):
        for i in range(count):
            words = {"task": name, "iteration": i, "item": task["items"][i % len(task["items"])]["name"], "is_warmup": is_warmup}
            yield sample("text_encoder_ns", component="text_encoder", **words)
            if name == "restyle":
                yield sample("vae_encoder_ns", component="vae_encoder", **words)
            for step in range(STEPS[name]):
                yield sample("unet_ns", component="unet", step=step, labels={"runs": "2"}, **words)
            yield sample("vae_decoder_ns", component="vae_decoder", **words)
            yield sample("end_to_end_ns", 1_000_000 * (STEPS[name] + (3 if name == "restyle" else 2)), **words)
            yield sample("residual_ns", 0, **words)
            yield sample("rss_bytes", task=name, is_warmup=False)


def samples() -> list[Line]:
    """Every sample of a good launch."""
    lines = [sample("session_load_ns", component=part) for part in ("text_encoder", "vae_encoder", "vae_decoder")]
    lines += [sample("session_load_ns", component="unet", labels={"unet": "base"}), sample("load_peak_rss_bytes")]
    before = "none"
    for block in PLAN["sequence"]:
        task = block["task"]
        if task == "restyle":
            lines.append(sample("adapter_load_ns", task=task, labels={"adapter": "restyle", "state": "cold"}))
        lines.append(sample("switch_ns", task=task, labels={"from": before, "to": task}))
        lines.append(sample("load_peak_rss_bytes", task=task))
        lines.append(sample("first_unet_ns", task=task, component="unet", item="000"))
        lines += [*images(block), *(sample(metric, task=task) for metric in BLOCK_END_METRICS)]
        before = task
    return [*lines, sample("memory_sampling_ns", 0)]


def header(**words: Any) -> Line:
    names = ("harness_version", "build_type", "commit", "runtime_version", "cpu", "started_at")
    return {
        "event": "header",
        "schema_version": 1,
        "plan_sha256": "0" * 64,
        "variant": "shared",
        "peak_reset": True,
        **dict.fromkeys(names, "x"),
    } | words


def library(path: str = RUNTIME.paths[0], build_id: str | None = RUNTIME.build_id) -> Line:
    return {"event": "library", "path": path, "build_id": build_id}


def heard_of(
    lines: list[Line], *, wall_ns: int = 9_000_000_000, first: Line | None = None, loaded: tuple[Line, ...] = (library(),)
) -> EventLog:
    """A launch that says these lines between a header with libraries and a footer that agrees with them."""
    heard = EventLog(expected=expected())
    count = sum(line["event"] == "sample" for line in lines)
    footer = {"event": "footer", "status": "OK", "samples": count, "wall_ns": wall_ns}
    for line in (first or header(), *loaded, *lines, footer):
        heard.feed(json.dumps(line))
    return heard


def fault_of(lines: list[Line]) -> str:
    fault = heard_of(lines).output_fault("0" * 64, WALL_S)
    assert fault is not None
    return fault


def is_measured(line: Line) -> bool:
    return "iteration" in line


def test_what_the_plan_asks_for_is_sound() -> None:
    heard = heard_of(samples())
    assert heard.output_fault("0" * 64, WALL_S) is None
    assert len(heard.samples) == len(samples())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: lines[: len(lines) // 2], ()),
        (lambda lines: [], (0, 4, "session_load_ns")),
        (lambda lines: [line for one in lines for line in (one, one)], ()),
        (lambda lines: [*lines, *lines], ()),
        (lambda lines: [line | {"is_warmup": True} if is_measured(line) else line for line in lines], ("warm-up",)),
        (lambda lines: [line | {"is_warmup": False} if is_measured(line) else line for line in lines], (2,)),
        (
            lambda lines: [line | {"task": "relight"} if "task" in line else line for line in lines],
            ("relight",),
        ),
        (lambda lines: [line for line in lines if line["metric"] != "unet_ns"], (0, 2, "unet_ns")),
        (lambda lines: [line for line in lines if line["metric"] != "peak_rss_bytes"], (0, 2, "peak_rss_bytes")),
    ],
    ids=["half", "none", "each twice", "all twice", "all warm-up", "no warm-up", "another task", "no U-Net", "no peak"],
)
def test_more_or_less_than_the_plan_asks_for_is_not_sound(
    change: Callable[[list[Line]], list[Line]], reason: tuple[object, ...]
) -> None:
    says(fault_of(change(samples())), *reason)


@pytest.mark.parametrize(
    "words",
    [
        {"value": "12"},
        {"value": True},
        {"value": None},
        {"value": 0},
        {"value": 5e-324},
        {"value": -1},
        {"value": 1e308},
        {"value": float("nan")},
        {"value": float("inf")},
        {"value": 61e9},
        {"metric": "joy_ns"},
        {"metric": ""},
        {"metric": "x" * 300},
        {"iteration": 10**30},
        {"iteration": -1},
        {"iteration": "0"},
        {"iteration": 3},
        {"iteration": 0.5},
        {"iteration": None},
        {"step": 2},
        {"step": None},
        {"item": "001"},
        {"item": "[/foo]"},
        {"task": "relight"},
        {"task": "re\x1b[2Jstyle"},
        {"component": "vae_decoder"},
        {"component": "brain"},
        {"is_warmup": "yes"},
        {"labels": {"runs": "[/foo]"}},
        {"labels": {"mood": "2"}},
        {"labels": {"runs": 2}},
        {"labels": {str(number): "2" for number in range(100)}},
    ],
    ids=repr,
)
def test_a_sample_that_cannot_be_is_a_problem_and_is_not_kept(words: Line) -> None:
    good = next(line for line in samples() if line["metric"] == "unet_ns" and not line["is_warmup"])
    heard = heard_of([good | words], loaded=())
    assert heard.problem is not None
    says(heard.problem, "line 2 of the harness's output", snapshot=False)
    assert len(heard.problem) < 1000
    assert heard.samples == []


@pytest.mark.parametrize(
    "line", ['{"event": "sample", "metric": "unet_ns", "value": 1' + "0" * 400 + "}", "[" * 100_000, "\0", "{}" * 3]
)
def test_a_line_that_no_parser_likes_is_a_problem_and_not_a_crash(line: str) -> None:
    heard = EventLog(expected=expected())
    heard.feed(line)
    assert heard.problem is not None
    assert len(heard.problem) < 1000


@pytest.mark.parametrize(
    "line", ["", "[]", '{"event": "sample"}', '{"event": "farewell"}', '{"event": "sample", "metric": "a"', "null"]
)
def test_a_line_that_is_no_event_is_a_problem_and_not_a_crash(line: str) -> None:
    heard = EventLog(expected=expected())
    heard.feed(line)
    assert heard.problem is not None
    says(heard.problem, 1)


@pytest.mark.parametrize(
    "words", [{"cpu": "a\x1b]0;title\x07"}, {"commit": "x" * 300}, {"plan_sha256": "../x"}, {"schema_version": True}, {"cpu": 3}]
)
def test_a_header_that_cannot_be_shown_or_stored_is_a_problem(words: Line) -> None:
    assert heard_of(samples(), first=header(**words)).problem is not None


def test_a_header_of_another_variant_is_not_sound() -> None:
    reads(heard_of(samples(), first=header(variant="float")).output_fault("0" * 64, WALL_S), "float", "shared")


@pytest.mark.parametrize("path", ["/dev/zero", "/root/runs/r/images/../../x", "/root/runs/r/images/restyle/000.png\0", "000.png"])
def test_an_image_lies_where_the_plan_says_or_it_is_none(path: str) -> None:
    heard = heard_of([{"event": "image", "task": "restyle", "item": "000", "path": path, "sha256": "0" * 64}])
    assert heard.problem is not None
    assert heard.images == {}


def test_an_image_is_announced_once_and_only_if_the_plan_has_it() -> None:
    image = {"event": "image", "task": "draw", "item": "000", "path": "/root/runs/r/images/draw/000.png", "sha256": "0" * 64}
    assert heard_of([image]).problem is None
    says(str(heard_of([image, image]).problem), "draw/000")
    says(str(heard_of([image | {"item": "009"}]).problem))


SYSTEM = "/vendor/lib64/libonnxruntime.so"


@pytest.mark.parametrize(
    ("loaded", "reason"),
    [
        (
            [library(SYSTEM, "cd" * 20)],
            (SYSTEM, "cd" * 20, RUNTIME.paths[0], "ab" * 20),
        ),
        ([library(), library(SYSTEM, None)], (SYSTEM, RUNTIME.paths[0])),
        ([library(f"/root/kits/k/../../..{SYSTEM}")], ()),
        ([library("/.."), library()], ()),
        ([library(), library("/" + RUNTIME.paths[0])], ()),
        ([library(build_id="cd" * 20)], ("cd" * 20, "libonnxruntime.so")),
        ([library(build_id=None)], ("libonnxruntime.so",)),
        ([library(), library("/system/lib64/libQnnHtp.so")], ()),
        ([], (RUNTIME.paths[0],)),
        ([library("/system/lib64/libc.so")], ()),
    ],
)
def test_another_library_than_the_one_that_was_pushed_is_not_sound(loaded: list[Line], reason: tuple[str, ...]) -> None:
    says(str(heard_of(samples(), loaded=tuple(loaded)).output_fault("0" * 64, WALL_S)), *reason)


@pytest.mark.parametrize("path", [*RUNTIME.paths, "/root/kits/k/../k/libonnxruntime.so"])
def test_a_library_may_be_told_by_any_path_that_leads_to_it(path: str) -> None:
    heard = heard_of(samples(), loaded=(library(path), library("/system/lib64/libc.so", None)))
    assert heard.output_fault("0" * 64, WALL_S) is None


@pytest.mark.parametrize(
    "words",
    [{"path": "libc.so"}, {"path": ""}, {"path": "/" + "x" * 5000}, {"path": "/a\x1b[31m"}, {"path": None}, {"path": 3},
     {"build_id": "xyz"}, {"build_id": "ab" * 33}, {"build_id": ""}, {"build_id": "a"}, {"build_id": "AB"}, {"build_id": 5}],
    ids=lambda words: repr(words)[:40],
)  # fmt: skip
def test_a_library_that_no_loader_would_tell_of_is_a_problem(words: Line) -> None:
    heard = heard_of([], loaded=(library() | words,))
    says(str(heard.problem), 2)
    assert heard.libraries == {}


def test_libraries_are_bounded_in_number_and_told_once() -> None:
    many = tuple(library(f"/lib/{number}.so") for number in range(MAX_LIBRARIES + 1))
    assert heard_of([], loaded=many[:-1]).problem is None
    says(str(heard_of([], loaded=many).problem), MAX_LIBRARIES + 1)
    says(str(heard_of([], loaded=(library(), library())).problem))


def test_times_longer_than_the_launch_are_not_sound() -> None:
    says(str(heard_of(samples(), wall_ns=999_999).output_fault("0" * 64, WALL_S)), 999999)
    says(str(heard_of(samples(), wall_ns=12_000_000_000).output_fault("0" * 64, WALL_S)), "10.000")


def changed_times(**values: float) -> str:
    """Say what is wrong with a launch whose samples of some metrics, without their `_ns`, have other values."""
    lines = [line | {"value": values.get(line["metric"].removesuffix("_ns"), line["value"])} for line in samples()]
    return str(heard_of(lines).output_fault("0" * 64, WALL_S))


def test_an_image_takes_as_long_as_its_parts_and_the_residual() -> None:
    says(changed_times(end_to_end=4_000_000), 0, "restyle", 4000000, 5000000)
    says(changed_times(residual=250_000), 0, "restyle", 5000000, 5250000)
    says(changed_times(unet=1), 0, "restyle", 5000000, 3000002)
    says(changed_times(end_to_end=1), 0, "restyle", 1, 5000000)
    assert changed_times(residual=900) == "None"  # rounded


def test_an_image_takes_at_least_as_long_as_calls_of_a_runtime_do() -> None:
    parts = dict.fromkeys(("text_encoder", "vae_encoder", "unet", "vae_decoder"), 1)
    says(changed_times(**parts, end_to_end=5), 5, 2000)


def test_images_take_no_longer_together_than_their_launch() -> None:
    fault = str(heard_of(samples(), wall_ns=39_000_000).output_fault("0" * 64, WALL_S))
    says(fault, 40000000, 39000000)


def test_lines_beyond_what_the_plan_can_explain_are_not_read() -> None:
    heard = EventLog(expected=expected())
    for _ in range(expected().max_lines + 1):
        heard.feed("{}")
    assert heard.is_over
    assert heard.problem is not None
    assert heard.problem.startswith("line 1 ")


def test_bytes_beyond_what_the_plan_can_explain_are_not_read() -> None:
    heard = EventLog(expected=expected())
    heard.feed(json.dumps(header()))
    heard.feed("é" * (expected().max_bytes // 2))
    assert heard.is_over
    says(str(heard.problem))


def test_errors_without_end_are_not_read() -> None:
    heard = heard_of([{"event": "error", "message": "again"}] * (MAX_ERRORS + 1))
    assert heard.is_over
    says(str(heard.problem), MAX_ERRORS)


def test_null_words_of_a_sample_do_not_apply() -> None:
    heard = heard_of([sample("rss_bytes", 7, task=None, labels=None, is_warmup=None)])
    assert heard.samples == [Sample(metric="rss_bytes", value=7.0)]


def test_a_timeout_without_end_still_leaves_a_limit() -> None:
    assert expected_events(PLAN, STEPS, timeout_s=1e300, libraries=[RUNTIME]).max_lines < 10**8
