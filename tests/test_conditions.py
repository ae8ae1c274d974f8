"""Conditions on a run's figures: what an expression may be, where it holds, and how a command ends then."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted_harness import World
from support.sentences import raising, reads, says
from support.stored_run import RUN, store_run
from support.synthetic_run import make_run

from quadbench.artifacts import RunResult, Variant
from quadbench.cli import main
from quadbench.errors import UnknownNameError, UserError
from quadbench.report.condition import met_places, read_condition, read_expression
from quadbench.report.kpi import kpi_rows
from quadbench.report.scores import quality_rows
from quadbench.results.layout import Layout

TASKS = ("restyle", "remove-object", "draw")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a.x < 3", True), ("a.x > 2", False), ("a.x >= 2", True), ("a.x == 2 and b.y != 5", False),
        ("a.x == 1 or b.y == 5", True), ("a.x > 9 or a.x < 3 and b.y > 4", True), ("a.x * 2 + 1 == b.y", True),
        ("(a.x < 3)", True), ("b.y < 3 and (a.x < 3 or a.x > 1)", False), ("a.x < 1" + " + 1" * 240, True),
        ("a.x - 2 > 0 or b.y > 1", True),
        ("(a.x + 1) * 2 > b.y", True), ("1 < b.y / a.x - 1", True), ("b.y - a.x - 1 == 2", True), ("a.x<3", True),
    ],
)  # fmt: skip
def test_an_expression_means_what_it_says(text: str, holds: bool) -> None:
    expression = read_expression(text)
    assert expression.holds({"a.x": 2.0, "b.y": 5.0}) is holds
    assert set(expression.names) <= {"a.x", "b.y"}


@pytest.mark.parametrize(
    "text",
    [
        "", "a.x", "a.x < 3 and b.y",
        "a.x + 1", "3", "1 < a.x < 3", "-a.x < 3", "a.x[0] < 3", "a.x < 0x10", "a.x < 1_0", "a.x < 'a.x'", "not a.x",
        "a.x in b.y", "a.x, b.y", "-" * 900 + "a.x < 1", "a.x < " + "~" * 900 + "1",
        "a.x < 1" + "()" * 450, "a.x % 2 < 1", "a.x < (b.y < 3)", "name0 < 3", "a.x < \0",
        "a.x <", "< 3", "a.x < 3 and", "a.x < 3 b.y > 2", "a.x = 3", "a.x < 3; b.y",
        "a.x ** 2 > 1",
        "x > 1",
        "__import__('os').system('x') > 1", "a.x < 1e9999", "(" * 400 + "a.x" + ")" * 400 + " < 1", "a.x < " + "1 + " * 400 + "1",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text: str) -> None:
    with raising(UserError, "condition", snapshot=False):
        read_expression(text)


def test_an_operator_that_is_none_of_the_four_is_named_with_what_stands_around_it() -> None:
    with raising(UserError, "a.x % 2"):
        read_expression("a.x % 2 < 1")


def test_a_name_without_its_parts_is_answered_with_a_whole_one() -> None:
    with raising(UserError, "shared.end_to_end_ms.p50", "x"):
        read_expression("x > 3")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("restile.shared.end_to_end_ms.p50 > 1", ("restile", "restyle")),
        ("shared.end_to_end.p50 > 1", ("end_to_end_ms",)),
        ("shared.end_to_end_ms.p95 > 1", ("p95", "p50", "p90")),
        ("shared.end_to_end_ms > 1", ()),
        ("shared.psnr_db.p50 > 1", ("shared.psnr_db.p50",)),
        ("ratio.nothing > 1", ("nothing",)),
    ],
)
def test_a_name_that_no_run_has_is_answered_with_the_known_ones(text: str, reason: tuple[str, ...]) -> None:
    with raising(UnknownNameError, *reason):
        read_condition(text, TASKS)


def _met(result: RunResult, text: str) -> tuple[str, ...]:
    return met_places(read_condition(text, TASKS), kpi_rows(result), quality_rows(result))


def test_a_condition_is_held_against_every_task_or_the_one_that_it_names(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    assert len(_met(result, "shared.end_to_end_ms.p50 > 1")) == 3
    (met,) = _met(result, "restyle.shared.end_to_end_ms.p50 > 1.0 * restyle.per_graph.end_to_end_ms.p50")
    assert met.startswith("restyle.shared.end_to_end_ms.p50 > 1.0 * restyle.per_graph.end_to_end_ms.p50: on virtual:s25: ")
    assert _met(result, "shared.end_to_end_ms.p50 > 10000") == ()
    assert _met(result, "shared.psnr_db < 38 or ratio.switch < 100") == ()
    assert len(_met(result, "shared.psnr_db < 39")) == 3


@pytest.mark.parametrize("text", ["a.x / 0 > 1", "1 / (a.x - 2) > 1", "a.x > 9 and a.x / 0 > 1", "a.x < 9 or a.x / 0 > 1"])
def test_what_is_no_number_neither_holds_nor_does_not(text: str) -> None:
    with pytest.raises(ArithmeticError):
        read_expression(text).holds({"a.x": 2.0})


def test_a_condition_that_divides_by_nothing_never_passes_and_one_without_a_figure_is_refused(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    (met,) = _met(result, "restyle.shared.end_to_end_ms.p50 / 0 > 1")
    says(met, 0, "restyle.shared.end_to_end_ms.p50")
    with raising(UserError, "1 > 0"):
        read_condition("1 > 0", TASKS)


def test_a_figure_that_is_missing_never_passes(tmp_path: Path) -> None:
    result = make_run(tmp_path, variants=(Variant.FLOAT, Variant.SHARED))
    assert len(_met(result, "per_graph.end_to_end_ms.p50 > 10000")) == 3
    says(_met(result, "per_graph.end_to_end_ms.p50 > 10000")[0], "per_graph.end_to_end_ms.p50")
    assert len(_met(result, "shared.unet_step_ms.p90 > 10000")) == 1  # of 10 iterations of 4 steps; the others have 80
    reads(_met(replace(result, records=(), deployments=()), "shared.psnr_db < 1"), "shared.psnr_db", 1)


def test_a_task_to_which_a_figure_does_not_apply_is_passed_over(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    assert len(_met(result, "shared.vae_encoder_ms.p50 > 1")) == 2
    reads(_met(result, "draw.shared.vae_encoder_ms.p50 > 1"), "draw.shared.vae_encoder_ms.p50", 1)


@pytest.fixture
def results(world: World) -> Layout:
    return store_run(world)


@pytest.mark.parametrize("form", [[], ["--json"], ["--format", "csv"]])
def test_report_ends_with_the_exit_code_of_a_condition(
    results: Layout, form: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", RUN, "--results", str(results.root), *form]
    assert main([*words, "--fail-if", "shared.end_to_end_ms.p50 > 10000"]) == 0
    capsys.readouterr()
    assert main([*words, "--fail-if", "shared.end_to_end_ms.p50 > 1", "--fail-if", "shared.psnr_db < 1"]) == 8
    shown = capsys.readouterr()
    assert "--fail-if shared.end_to_end_ms.p50 > 1: on virtual:s25, " in " ".join(shown.err.split())
    assert "shared.psnr_db" not in shown.err
    if form == ["--json"]:
        assert len(json.loads(shown.out)["conditions_met"]) == 2


def test_a_wrong_condition_is_refused_before_a_run_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "quickstart", "--devices", "local", "--results", str(tmp_path / "results")]
    assert main([*words, "--fail-if", "nothing.shared.psnr_db < 3"]) == 2
    says(capsys.readouterr().err, "nothing")
    assert not (tmp_path / "results").exists()


def test_json_and_another_format_exclude_each_other(results: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", RUN, "--results", str(results.root), "--format", "csv", "--json"]) == 2
    says(json.loads(capsys.readouterr().out)["error"], "--json", "--format")
