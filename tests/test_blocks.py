"""Blocks: what is whole is not run again, what is broken is repeated under new numbers; of repeated blocks the last counts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from support.sentences import reads

from quadbench.artifacts import LaunchPlan, RunRecord, Status, Variant
from quadbench.measure.launch_schedule import missing_blocks
from quadbench.report.launches import whole_blocks
from quadbench.results.stored_runs import count_blocks

S, P, F = Variant.SHARED, Variant.PER_GRAPH, Variant.FLOAT
ABBA = [(F, 0), (S, 0), (P, 0), (P, 1), (S, 1), (S, 2), (P, 2), (P, 3), (S, 3)]
SEQUENTIAL = [(S, 0), (S, 1), (S, 2), (S, 3), (P, 0), (P, 1), (P, 2), (P, 3)]
LETTERS = {"s": S, "p": P, "f": F}


def left(order: list[tuple[Variant, int]], stored: str) -> str:
    """What is still to be run, where `stored` has launches such as `s0` and, where one is not OK, `p0!`."""
    launches = [LaunchPlan(variant=variant, launch=number, sequence=()) for variant, number in order]
    blocks = missing_blocks(launches, cast(Any, [Stored(word) for word in stored.split()]))
    return " | ".join(" ".join(f"{launch.variant.value[0]}{launch.launch}" for launch in block) for block in blocks)


class Stored:
    """A record, as far as it says what is missing."""

    def __init__(self, word: str) -> None:
        self.variant, self.launch = LETTERS[word[0]], int(word[1:].rstrip("!"))
        self.status = Status.FAILED if word.endswith("!") else Status.OK


@pytest.mark.parametrize(
    ("stored", "rest"),
    [
        ("", "f0 | s0 p0 p1 s1 | s2 p2 p3 s3"),
        ("f0 s0 p0 p1 s1", "s2 p2 p3 s3"),
        ("f0! s0 p0 p1 s1", "f1000 | s2 p2 p3 s3"),
        ("f0 s0 p0", "s1000 p1000 p1001 s1001 | s2 p2 p3 s3"),
        ("f0 s0 p0! p1 s1 s2 p2 p3 s3", "s1000 p1000 p1001 s1001"),
        ("f0 s0 p0! s2 p2 p3 s3 s1000 p1000 p1001 s1001", ""),
        ("f0 s0 p0! s2 p2 p3 s3 s1000", "s2000 p2000 p2001 s2001"),
    ],
)
def test_what_is_missing_of_a_device(stored: str, rest: str) -> None:
    assert left(ABBA, stored) == rest


def test_without_blocks_of_both_variants_a_half_is_repeated() -> None:
    assert left(SEQUENTIAL, "s0 s1! s2 s3 p0 p1") == "s1000 s1001 | p2 p3"


def records_of(record: RunRecord, words: str) -> Iterator[RunRecord]:
    for place, word in enumerate(words.split()):
        stored = Stored(word)
        yield replace(
            record,
            record_id=f"{place}",
            started_at=record.started_at.replace(microsecond=place),
            variant=stored.variant,
            launch=stored.launch,
            status=stored.status,
            reason="it was lost" if stored.status is Status.FAILED else None,
        )


def test_of_a_block_that_was_repeated_only_the_last_counts(record: RunRecord) -> None:
    counted = count_blocks(tuple(records_of(record, "s0 p0! s2 p2 p3 s3 s1000 p1000 p1001 s1001")))
    assert [each.status for each in counted] == [Status.DISCARDED] * 2 + [Status.OK] * 8
    reads(counted[1].reason, 1000)
    assert len(whole_blocks(counted)) == 2


def test_what_was_not_repeated_counts_as_it_ended(record: RunRecord) -> None:
    stored = tuple(records_of(record, "s0 s1! s2 s3 p0 p1 s1000 s1001"))
    ends = {f"{each.variant.value[0]}{each.launch}": each.status for each in count_blocks(stored)}
    assert [name for name, status in ends.items() if status is Status.DISCARDED] == ["s0", "s1"]
    assert count_blocks(stored[:6]) == stored[:6]
