"""An empty word, as a script's variable that was not set, is refused wherever a command takes a word."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sentences import raising, says

from quadbench.cli import build_parser, main
from quadbench.cli.commands import COMMANDS


def options(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Yield every option that takes a word, with the parser of its command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options(command)
        elif action.option_strings and action.nargs is None:
            yield parser, action.option_strings[-1]


def test_no_option_of_any_command_takes_an_empty_word() -> None:
    every = list(options(build_parser()))
    assert len(every) > len(COMMANDS)
    for parser, option in every:
        with raising(Exception, option, snapshot=False):
            parser.parse_args([option, ""])


@pytest.mark.parametrize("words", [["night.yaml", "--results", ""], ["night.yaml", "--night="], [""]])
def test_an_empty_word_is_refused_before_anything_is_done(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["nightly", "run", *words])
    says(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
