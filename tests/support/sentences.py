"""Sentences: tests assert error classes, names and numbers; the sentences themselves lie in tests/__snapshots__.

A case of a parametrised test that names something needs no snapshot: it is compared only where one is stored.
"""

import getpass
import platform
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.exceptions import SnapshotDoesNotExist
from syrupy.extensions.amber import AmberSnapshotExtension
from syrupy.location import PyTestLocation
from syrupy.types import SnapshotIndex

SHORT = 400  # characters of a text that is compared whole
_MOST_AROUND = 120  # characters of a sentence on either side of what is looked for
_LEAST_LIKENESS = 0.4  # of a reworded sentence to the one whose place it took
_REPO = Path(__file__).resolve().parents[2]
_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[^\W\d_a-z]|['“\[(/])")
_ENGINES = "(?:sqlite|postgresql|folder|s3)"  # what the fixtures `database` and `store` are in turn
_UNITS = "ns|us|µs|ms|s|min|h|%|dB|MB|MiB|GB|GiB|kB|KiB|kHz|MHz|°C|bytes?|seconds?"
_CHANGING = (
    (r"\b(DEBUG|INFO|WARNING|ERROR) +[\w.]+:\w+\.py:\d+", r"\1"),  # where a line is logged
    (r"/[^\s'\"]{0,99}?/pytest-of-[^/\s]+/pytest-\d+(?:/popen-gw\d+)?(?:/[^\s/'\",;:)]+)?", "TMP"),
    (r"postgresql://quadbench@/test\d+\?host=[\w%.-]+|TMP/results/quadbench\.sqlite", "DATABASE"),
    (r"(?<![\w/])/tmp/[\w.-]+|\btmp[a-z0-9_]{8}\b", "TMP"),
    (r"(TMP[^\s']*)\.\.\.(?=')", "TMP..."),  # a long path is shown cut, where depends on the length of its folder
    (r"(?:PYTHON)?(?:/[\w.+-]{1,40}){1,12}/(?:site-packages|python3\.\d+)(?=/)", "PYTHON"),
    (r"\b\d{8}-\d{6}(?:-[0-9a-f]{4,12}\b)?", "ID"),
    (r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?: UTC|Z|[+-]\d\d:\d\d)?", "DATE"),
    (r"\b\d\d:\d\d(?::\d\d)?(?: UTC|Z)?(?![\d:])", "TIME"),
    (r"(127\.0\.0\.\d+|localhost|\[::1\]):\d+", r"\1:PORT"),
    (r"\bbucket\d+\b", "BUCKET"),
    (r"\b(port|pid|process) \d+", r"\1 N"),
    (r"\bj\d{6}\b", "JOB"),  # AI Hub's jobs, numbered over all tests of a process
    (r"\b0, 1(?:, \d+)*\b", "CORES"),
    (r"\b0x[0-9a-f]+\b|\b[0-9a-f]{12,64}\b|\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,11}\b", "HEX"),
    (r"\b\d+\.\d+\.\d+[\w.+]*(?<!\.)(?!\.?\d*:PORT)", "VERSION"),
    (rf"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?= ?(?:{_UNITS})(?!\w))", "N"),
    (r"(?<![\w.])[+-]?(?:\d+\.\d+(?:e[+-]?\d+)?|\d{4,})(?!\.?\w)", "N"),
)


@pytest.fixture(autouse=True)
def _running_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have `raising`, `says` and `reads` know whose snapshots are meant."""
    _running.append(_Snapshots(request))
    yield
    _running.pop()


@contextmanager
def raising(error: type[Exception], *names: object, snapshot: bool = True) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Assert that an error is raised whose message has these names and numbers, and is the snapshot's.

    Without `snapshot` its words are not compared: they differ from run to run, or a test sees very many.
    """
    with pytest.raises(error) as caught:
        yield caught
    _read(str(caught.value), names, snapshot)


def reads(value: object, *names: object, snapshot: bool = True) -> None:
    """Assert that a text has these names and numbers, and as a whole is the snapshot's; lists and tables are lines."""
    text = _lines(value)
    _check_asserted(text, names, snapshot)
    _read(text, names, snapshot)


def _read(text: str, names: tuple[object, ...], snapshot: bool) -> None:
    _has(text, names)
    if snapshot and _running:
        _running[-1].compare_whole(text, is_named=any(map(str, names)))


def says(value: object, *names: object, like: str | tuple[str, ...] = (), snapshot: bool = True) -> None:
    """Assert that a text has these names and numbers, and the snapshot's sentences; a short text is compared whole.

    `like` is for the first snapshot of a sentence in a long text: words of it, to be taken out again once it is made.
    """
    text = _joined(_lines(value))
    wanted = tuple(map(_joined, (like,) if isinstance(like, str) else like))
    _check_asserted(text, names, snapshot)
    _has(text, names)
    assert all(one in text for one in wanted), f"not all of {wanted} are in {text!r}"
    if snapshot and _running:
        if len(steady(text)) <= SHORT:
            _running[-1].compare_whole(text, is_named=any(map(str, names)))
        else:
            _running[-1].compare_sentences(text, wanted or [str(name) for name in names if str(name) in text])


def _check_asserted(text: str, names: tuple[object, ...], snapshot: bool) -> None:
    """Refuse a call that compares neither names nor a sentence, as in a slow test, and so could never fail."""
    is_compared = any(map(str, names)) or (snapshot and _running and _running[-1].is_kept)
    assert is_compared, f"nothing is asserted of {text!r}: name a word of it"


def _without_engine(name: str) -> str:
    return re.sub(rf"(?<=\[){_ENGINES}-|-{_ENGINES}(?=\])|\[{_ENGINES}\]", "", name)


class _Plain(AmberSnapshotExtension):
    """Snapshots of text as it is, without quotes: one for both engines of a database, and for both kinds of a store."""

    def serialize(self, data: object, **_: object) -> str:
        return str(data)

    @classmethod
    def get_snapshot_name(cls, *, test_location: PyTestLocation, index: SnapshotIndex = 0) -> str:
        name = super().get_snapshot_name(test_location=test_location, index=index)
        return _without_engine(name)


class _Snapshots:
    """Those of the test that runs. Slow tests, tests on devices and tests of random input have none."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        marks = {mark.name for mark in request.node.iter_markers()}
        self.is_kept = not marks & {"slow", "device"} and not getattr(request.node.obj, "is_hypothesis_test", False)
        self._is_case = "[" in _without_engine(request.node.name)
        self._request = request
        self._compared: set[str] = set()
        self._opened: SnapshotAssertion | None = None

    def compare_whole(self, text: str, *, is_named: bool) -> None:
        """Compare all of a text; the same again, as in a loop, is not compared."""
        if is_named and self._needs_none:
            return
        now = "\n".join(sentence for line in text.splitlines() for sentence in _SENTENCE_END.split(steady(line).rstrip()))
        if self.is_kept and now not in self._compared:
            self._compared.add(now)
            assert now == self._snapshot()

    def compare_sentences(self, text: str, first: Sequence[str]) -> None:
        """Compare those sentences of a text that are kept; where none are yet, those around some words."""
        if not self.is_kept or (first and self._needs_none):
            return
        kept, page = self._stored(), steady(text)
        if kept is None:
            kept = [steady(_around(text, text.index(words), len(words))) for words in first] or [page]
        now = "\n".join(dict.fromkeys(line if line in page else nearest(line, page) for line in kept))
        assert now == self._snapshot()

    @property
    def _needs_none(self) -> bool:
        """Whether a case has no snapshot of its next sentence; that sentence keeps its number."""
        if not (self.is_kept and self._is_case) or self._stored() is not None:
            return False
        self._snapshot()._executions += 1
        return True

    def _snapshot(self) -> SnapshotAssertion:
        if self._opened is None:
            self._opened = self._request.getfixturevalue("snapshot").use_extension(_Plain)
        return self._opened

    def _stored(self) -> list[str] | None:
        snapshot = self._snapshot()
        try:
            stored = snapshot.session.recall_snapshot(snapshot.extension, snapshot.test_location, snapshot.index)
        except SnapshotDoesNotExist:
            return None
        return None if stored is None else str(stored).splitlines()


_running: list[_Snapshots] = []


def steady(text: str) -> str:
    """Return a text with words in place of what differs from run to run and from machine to machine."""
    for own, stands_for in _OWN:
        text = text.replace(own, stands_for)
    for pattern, stands_for in _CHANGING:
        text = re.sub(pattern, stands_for, text)
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


def nearest(sentence: str, text: str) -> str:
    """Return what a text says now in a sentence's place: its most similar stretch."""
    wanted, words = sentence.split(), text.split()
    matcher = SequenceMatcher(b=wanted, autojunk=False)
    likeness, place = 0.0, 0
    for at in range(max(1, len(words) - len(wanted) + 1)):
        matcher.set_seq1(words[at : at + len(wanted)])
        if matcher.quick_ratio() > likeness and (ratio := matcher.ratio()) > likeness:
            likeness, place = ratio, at
    assert likeness >= _LEAST_LIKENESS, f"nothing is like {sentence!r} in {text!r}: give words of the new one, as `like`"
    start = len(" ".join(words[:place])) + (place > 0)
    return _around(" ".join(words), start, len(" ".join(words[place : place + len(wanted)])))


def _around(text: str, start: int, length: int) -> str:
    """Return the sentence, or the sentences, around a part of a text."""
    end = start + length
    ends = [0, *(found.start() + 1 for found in _SENTENCE_END.finditer(text)), len(text)]
    first = max((at for at in ends if start - _MOST_AROUND <= at <= start), default=start)
    last = min((at for at in ends if end <= at <= end + _MOST_AROUND), default=end)
    return text[first:last].strip()


def _has(text: str, names: Iterable[object]) -> None:
    """Assert that names are parts of the text, and that numbers stand alone there."""
    joined = _joined(text)
    for name in map(_joined, map(str, names)):
        alone = rf"(?<![\d.]){re.escape(name)}(?!\.?\d)" if re.fullmatch(r"0|[1-9][\d.,]*|0\.\d+", name) else re.escape(name)
        assert re.search(alone, joined), f"{name!r} is not in {text!r}"


def _lines(value: object) -> str:
    match value:
        case str():
            return value
        case Mapping():
            return "\n".join(f"{key}: {entry}" for key, entry in value.items())
        case set() | frozenset():
            return "\n".join(sorted(map(str, value)))
        case Iterable():
            return "\n".join(map(str, value))
        case _:
            return str(value)


def _joined(text: str) -> str:
    return " ".join(text.split())


def _own() -> tuple[tuple[str, str], ...]:
    """Names of this machine and its folders, long enough to be no part of a word."""
    names = {
        sys.executable: "PYTHON", sys.prefix: "PYTHON", str(_REPO): "REPO", str(Path.home()): "HOME",
        f"{getpass.getuser()}@{socket.gethostname()}": "USER@HOST", socket.gethostname(): "HOST", platform.machine(): "MACHINE",
    }  # fmt: skip
    return tuple((name, stands_for) for name, stands_for in names.items() if len(name) > 3)


_OWN = _own()  # before any test gives itself another home or user
