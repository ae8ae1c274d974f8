"""Snapshots of sentences: what stands in them, what a reworded sentence becomes, and that none is left of a test that is gone."""

import ast
import re
from pathlib import Path

import pytest
from support.sentences import SHORT, nearest, raising, reads, says, steady

TESTS = Path(__file__).parent
PAGE = "Here are words of a page. " * SHORT


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (f"'{TESTS.parent}/docs/a.md' is missing", "'REPO/docs/a.md' is missing"),
        ("'/tmp/pytest-of-me/pytest-7/popen-gw1/test_x0/a.yaml' is missing", "'TMP/a.yaml' is missing"),
        ("run 20260102-030405-9f3a took 2.5 s, until 2026-01-02 03:04:05 UTC", "run ID took N s, until DATE"),
        ("port 4711 of 127.0.0.1:4711, process 99", "port N of 127.0.0.1:PORT, process N"),
        ("3 of 5 files, 30.0 MB, 41.5 dB, 1234567 bytes", "3 of 5 files, N MB, N dB, N bytes"),
        ("object 1f00aa5512340000 of onnxruntime 1.22.1", "object HEX of onnxruntime VERSION"),
        ("WARNING quadbench.cli:main.py:31 'a.md' is gone", "WARNING 'a.md' is gone"),
        ("lora-int16 on s25@R3CX, v79, 16x16", "lora-int16 on s25@R3CX, v79, 16x16"),
    ],
)
def test_what_differs_from_run_to_run_is_not_kept(said: str, kept: str) -> None:
    assert steady(said) == kept


def test_a_name_or_a_number_that_is_not_said_fails() -> None:
    for names in (("s26",), (3,), ("s25", 20)):
        with pytest.raises(AssertionError, match="is not in"):
            reads("'s25' has 2 of 12 files", *names, snapshot=False)


def test_an_error_is_known_by_its_class_and_its_names() -> None:
    with raising(ValueError, "steps", 3):
        raise ValueError("'steps' is 3; expected more")
    with pytest.raises(AssertionError, match="is not in"), raising(ValueError, "strength", snapshot=False):
        raise ValueError("'steps' is 3; expected more")


def test_a_long_text_is_compared_by_its_sentences() -> None:
    says(f"{PAGE}No launch was right, so there are no figures. {PAGE}")


def test_the_sentence_that_took_another_s_place_is_found_by_its_words() -> None:
    page = f"{PAGE}No launch ended well, so there are no figures. {PAGE}"
    assert nearest("No launch was right, so there are no figures.", page) == "No launch ended well, so there are no figures."
    with pytest.raises(AssertionError, match="nothing is like"):
        nearest("An altogether different thought stood there", page)


def test_every_snapshot_is_of_a_test_that_there_is() -> None:
    def tests_in(path: Path) -> set[str]:
        return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}

    of_contracts = set().union(*map(tests_in, TESTS.glob("support/*_contract.py")))
    for path in (TESTS / "__snapshots__").glob("*.ambr"):
        tests = tests_in(TESTS / f"{path.stem}.py") | of_contracts
        kept = set(re.findall(r"^# name: (?:\w+\.)?(test_\w+)", path.read_text(), re.MULTILINE))
        assert kept <= tests, f"{path.name}: {sorted(kept - tests)} are no tests; delete their snapshots"
