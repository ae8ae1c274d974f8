"""The schedule of a recipe: what runs, in which order."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest

from quadbench.artifacts import LaunchPlan, Variant
from quadbench.artifacts.run_record import SequenceBlock
from quadbench.measure.launch_schedule import launches_of, random_blocks
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe

FLOAT, SHARED, PER_GRAPH = Variant.FLOAT, Variant.SHARED, Variant.PER_GRAPH
SEED = "a run"


def recipe(*, baselines: Sequence[str] = ("per-graph",), tasks: int = 2, **measure: Any) -> Recipe:
    quickstart = load_recipe("quickstart")
    changed = quickstart.measure.model_copy(update=measure)
    return quickstart.model_copy(update={"measure": changed, "baselines": baselines, "tasks": quickstart.tasks[:tasks]})


def schedule(recipe: Recipe, items: int = 4) -> tuple[LaunchPlan, ...]:
    return launches_of(recipe.terms, {task.name: items for task in recipe.tasks}, seed=SEED)


def order(recipe: Recipe) -> list[Variant]:
    return [launch.variant for launch in schedule(recipe)]


@pytest.mark.parametrize(
    ("launches", "expected"),
    [
        (1, [SHARED, PER_GRAPH]),
        (2, [SHARED, PER_GRAPH, PER_GRAPH, SHARED]),
        (3, [SHARED, PER_GRAPH, PER_GRAPH, SHARED, PER_GRAPH, SHARED]),
    ],
)
def test_abba_mirrors_the_order_of_the_variants_in_each_block(launches, expected):
    assert order(recipe(launches=launches)) == [FLOAT, *expected]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_side_comes_as_often_at_each_place_of_a_mirrored_block(count: int) -> None:
    sides = "ABCD"[:count]
    blocks = list(islice(random_blocks(sides, "a run"), 5 * count))
    assert all(block == block[::-1] and sorted(block) == sorted(2 * sides) for block in blocks)
    for start in range(0, len(blocks), count):
        assert all(sorted(places) == list(sides) for places in zip(*blocks[start : start + count], strict=True))


def test_the_order_of_blocks_is_drawn_and_the_same_again_for_the_same_run() -> None:
    def drawn(seed: str) -> list[tuple[str, ...]]:
        return list(islice(random_blocks("AB", seed), 12))

    assert drawn("a run") == drawn("a run")
    assert len({tuple(drawn(f"run {number}")) for number in range(20)}) > 10
    assert {tuple(drawn(f"run {number}")[0]) for number in range(20)} == {("A", "B", "B", "A")}
    assert {tuple(drawn(f"run {number}")[2]) for number in range(20)} == {("A", "B", "B", "A"), ("B", "A", "A", "B")}


def test_variants_with_a_graph_per_task_run_the_tasks_that_have_one():
    terms = recipe(launches=1, switches=4, sequence=("restyle", "mine", "restyle")).terms
    counts = {"restyle": 4, "remove-object": 4, "mine": 4}
    _, shared, per_graph = launches_of(terms, counts, seed="", own=("restyle", "remove-object"))
    assert [block.task for block in shared.sequence] == ["restyle", "remove-object", "mine", "restyle", "mine", "restyle"]
    assert [block.task for block in per_graph.sequence] == ["restyle", "remove-object", "restyle"]
    assert [launch.variant for launch in launches_of(terms, counts, seed="", own=())] == [FLOAT, SHARED]


def test_sequential_runs_one_variant_after_the_other():
    assert order(recipe(launches=2, order="sequential")) == [FLOAT, SHARED, SHARED, PER_GRAPH, PER_GRAPH]


def test_without_a_baseline_only_the_shared_graph_runs():
    assert order(recipe(baselines=(), launches=2)) == [FLOAT, SHARED, SHARED]


def test_without_references_the_float_graph_does_not_run():
    launches = launches_of(recipe(launches=1).terms, {"restyle": 4, "remove-object": 4}, seed=SEED, has_references=False)
    assert [launch.variant for launch in launches] == [SHARED, PER_GRAPH]


def test_launches_count_from_zero_within_their_variant():
    launches = schedule(recipe(launches=2))
    assert [(launch.variant, launch.launch) for launch in launches] == [
        (FLOAT, 0),
        (SHARED, 0),
        (PER_GRAPH, 0),
        (PER_GRAPH, 1),
        (SHARED, 1),
    ]


def test_the_float_launch_makes_every_image_once():
    float_launch = schedule(recipe(), items=5)[0]
    assert float_launch.sequence == (
        SequenceBlock(task="restyle", warmup=0, iterations=5),
        SequenceBlock(task="remove-object", warmup=0, iterations=5),
    )


def test_a_launch_runs_every_task_and_then_switches_between_them():
    launch = schedule(recipe(warmup=2, iterations=12, switches=3))[1]
    assert launch.sequence == (
        SequenceBlock(task="restyle", warmup=2, iterations=12),
        SequenceBlock(task="remove-object", warmup=2, iterations=12),
        SequenceBlock(task="restyle", warmup=0, iterations=1),
        SequenceBlock(task="remove-object", warmup=0, iterations=1),
        SequenceBlock(task="restyle", warmup=0, iterations=1),
    )


def test_a_stated_sequence_takes_the_place_of_tasks_in_turn():
    launch = schedule(recipe(switches=3, sequence=("restyle", "restyle", "restyle", "remove-object")))[1]
    assert launch.sequence[2:] == (
        SequenceBlock(task="restyle", warmup=0, iterations=3),
        SequenceBlock(task="remove-object", warmup=0, iterations=1),
    )


def test_every_variant_runs_the_same_sequence():
    assert len({launch.sequence for launch in schedule(recipe())[1:]}) == 1


def test_a_task_with_many_inputs_runs_once_for_each():
    launch = schedule(recipe(iterations=12), items=30)[1]
    assert launch.sequence[0].iterations == 30


def test_a_single_task_has_nothing_to_switch_to():
    launch = schedule(recipe(tasks=1, switches=4))[1]
    assert [block.task for block in launch.sequence] == ["restyle"]
