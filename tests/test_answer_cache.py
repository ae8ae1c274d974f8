"""What is remembered is asked once, however many ask; what fails and what is old is asked again."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from quadbench.serve.queries import AnswerCache


def test_who_asks_while_it_is_worked_out_waits_for_the_same_answer() -> None:
    asked: list[str] = []
    begun = threading.Barrier(8)

    def slow(key: str) -> str:
        asked.append(key)
        time.sleep(0.05)
        return key.upper()

    remembered = AnswerCache(slow, age_s=60, most=5)

    def ask(_: int) -> str:
        begun.wait(30)
        return remembered("a")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"A"}
    assert asked == ["a"]


def test_what_is_old_is_asked_again() -> None:
    asked: list[int] = []
    remembered = AnswerCache(lambda key: asked.append(key), age_s=0, most=5)
    remembered(1)
    remembered(1)
    assert asked == [1, 1]


def test_what_was_looked_at_longest_ago_is_forgotten() -> None:
    asked: list[int] = []
    remembered = AnswerCache(lambda key: asked.append(key), age_s=60, most=2)
    for key in (1, 2, 1, 3, 1, 2):
        remembered(key)
    assert asked == [1, 2, 3, 2]


def test_what_fails_is_not_remembered() -> None:
    answers = iter([OSError("away"), "here"])

    def ask(_: int) -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    remembered = AnswerCache(ask, age_s=60, most=2)
    with pytest.raises(OSError, match="away"):
        remembered(1)
    assert remembered(1) == "here"
