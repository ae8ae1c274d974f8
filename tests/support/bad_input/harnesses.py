"""Harnesses: the lines of a good launch -> cases: lines that lie, are missing, come twice, are none or are without end."""

import json
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from test_event_log import WALL_S, expected, header, library, samples

from quadbench.artifacts.safe_text import one_line
from quadbench.errors import HarnessError
from quadbench.harness.event_log import EventLog
from quadbench.measure.launch_record import find_failure
from support.bad_input.case import Case
from support.bad_input.values import OF_NUMBERS, OF_TEXTS, OF_TRUTHS, brief, changed

Line = dict[str, Any]
DIGEST = "0" * 64
# Words that nothing depends on, and what they may be instead of text.
_FREE = {"harness_version", "build_type", "commit", "runtime_version", "cpu", "started_at"}
# A sample may leave these out, and an event may have null for them; what its metric needs of them is counted.
_OPTIONAL = {"task", "component", "iteration", "step", "item", "is_warmup", "labels"}
_CLOCKED = {"rss_bytes", "pss_bytes"}
_RAW = (
    b"", b"\0", b"{", b"[]", b"null", b"5", b"\xff\xfe", b'{"event": "sample"}', b'{"event": "none"}', b'{"event": 5}',
    b'{"event": "sample", "event": "header"}', b"[" * 10_000, b'{"event": "error", "message": 5}', b'{"a": ' * 5_000,
    b'{"event": "image", "task": "restyle", "item": "000", "path": "/etc/passwd", "sha256": "' + b"0" * 64 + b'"}',
    b'{"event": "image", "task": "restyle", "item": "000", "path": "/root/runs/r/images/restyle/../x", "sha256": "0"}',
    b'{"event": "error", "message": "\\u001b[31m[/red]"}', b'{"event": "error", "message": "' + b"m" * 60_000 + b'"}',
    b'{"event": "footer", "status": "OK", "samples": 0, "wall_ns": 1}', b'{"event": "sample", "metric": "\\ud800", "value": 1}',
)  # fmt: skip


def harness_cases(dice: random.Random) -> Iterator[Case]:
    """Yield cases of what a harness says; a launch that says it must not be OK."""
    right = [header(), library(), *samples(), *_pictures()]
    right.append({"event": "footer", "status": "OK", "samples": len(samples()), "wall_ns": 9_000_000_000})
    said = [json.dumps(line) for line in right]
    yield from _of_fields(dice, right)
    for number in dice.sample(range(len(right)), 40):
        is_clocked = right[number].get("metric") in _CLOCKED
        yield _case(f"without line {number}", [*said[:number], *said[number + 1 :]], may_pass=False)
        yield _case(f"line {number} twice", [*said[: number + 1], *said[number:]], may_pass=False)
        assert not is_clocked or right[-1]["samples"] == len(samples())
    for raw in _RAW:
        place = dice.randrange(len(said))
        yield _case(f"a line {raw[:30]!r}", [*said[:place], raw.decode(errors="replace"), *said[place:]])
    for number in range(60):
        place = dice.randrange(len(said))
        line = changed(said[place].encode(), dice).decode(errors="replace")
        yield _case(f"line {place} changed {number}", [*said[:place], *line.split("\n"), *said[place + 1 :]], may_pass=True)
    yield _case("nothing", [])
    yield _case("everything backwards", said[::-1])
    yield _case("everything twice", [*said, *said])
    yield _case("lines without end", [said[0], *said[2:3] * 20_000])
    libraries = [json.dumps(library(f"/lib/{number}.so")) for number in range(2000)]
    yield _case("libraries without end", [*said[:-1], *libraries, said[-1]])
    yield _case("errors without end", [said[0], *['{"event": "error", "message": "x"}'] * 100])


def _pictures() -> list[Line]:
    items = (("restyle", "000"), ("restyle", "001"), ("draw", "000"))
    return [
        {"event": "image", "task": task, "item": item, "path": f"/root/runs/r/images/{task}/{item}.png", "sha256": DIGEST}
        for task, item in items
    ]


def _of_fields(dice: random.Random, right: Sequence[Line]) -> Iterator[Case]:
    kinds = {(line["event"], line.get("metric"), line.get("task")): number for number, line in enumerate(right)}
    for number in kinds.values():
        line = right[number]
        for key, value in line.items():
            of_kind = OF_TRUTHS if isinstance(value, bool) else OF_NUMBERS if isinstance(value, int) else OF_TEXTS
            wrong = dice.choice(of_kind)
            is_free = key in _FREE and isinstance(wrong, str) and wrong.isprintable() and len(wrong) < 200
            is_free |= key in _OPTIONAL and wrong is None
            is_free |= (
                key == "value" and isinstance(wrong, int | float) and line["metric"].endswith("_bytes") and 0 <= wrong < 2**50
            )
            text = [json.dumps(other) for other in right]
            text[number] = json.dumps(line | {key: wrong})
            yield _case(
                f"line {number}, {line.get('metric', line['event'])}, with {key} = {brief(wrong)}", text, may_pass=is_free
            )
            left = {other: kept for other, kept in line.items() if other != key}
            text = [*text[:number], json.dumps(left), *text[number + 1 :]]
            yield _case(f"line {number}, {line.get('metric', line['event'])}, without {key}", text, may_pass=key in _OPTIONAL)


def _case(name: str, lines: Sequence[str], *, may_pass: bool = False) -> Case:
    return Case(name=name, act=partial(_hear, list(lines)), may_pass=may_pass)


def _hear(lines: Sequence[str], _folder: Path) -> None:
    """Hear a launch to its end, and say of it what a record would."""
    heard = EventLog(expected=expected())
    for line in lines:
        heard.feed(line)
        if heard.is_over:
            break
    failure = find_failure(heard, None, DIGEST, WALL_S)
    if failure is None and len(heard.images) < len(_pictures()):
        raise HarnessError("harness has painted fewer images than expected")
    if failure is not None:
        raise HarnessError(f"{one_line(failure.reason)}; expected none")
