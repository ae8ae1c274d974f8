"""Every report has the commands that do the same again, as the command line takes them, and its data as their schema says."""

import html
import re
import shlex
from pathlib import Path

import pytest
from support.reports import REPORTS

from quadbench.cli import build_parser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def pages(folder: Path) -> dict[str, str]:
    return {name: write(folder) for name, write in REPORTS.items()}


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest, pages: dict[str, str]) -> tuple[str, str]:
    return request.param, pages[request.param]


def test_every_command_is_one_that_the_command_line_takes(report: tuple[str, str]) -> None:
    _, page = report
    commands = [html.unescape(text) for text in re.findall(r"<code[^>]*>(quadbench .*?)</code>", page)]
    for command in commands:
        build_parser().parse_args(shlex.split(command)[1:])
    (again,) = re.findall(r"<dt>The same again</dt><dd><code[^>]*>(.*?)</code>", page)
    assert html.unescape(again) in commands


@pytest.mark.parametrize("name", ["run", "sweep", "comparison"])
def test_every_command_about_stored_runs_comes_to_their_folder(name: str, pages: dict[str, str], folder: Path) -> None:
    commands = [html.unescape(text) for text in re.findall(r"<code[^>]*>(quadbench .*?)</code>", pages[name])]
    own = [command for command in commands if not command.startswith("quadbench sweep")]  # which a sweep has in its data
    assert own
    assert all(command.endswith(f" --results {folder}") for command in own)
