"""Every report has the commands that do the same again, as the command line takes them, and its data as their schema says."""

import html
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from support.hand_made import comparison_of
from support.printed_schemas import schema
from support.reports import REPORTS

from quadbench.cli import build_parser
from quadbench.report.html import render_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def pages(folder: Path) -> dict[str, str]:
    return {name: write(folder) for name, write in REPORTS.items()}


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest, pages: dict[str, str]) -> tuple[str, str]:
    return request.param, pages[request.param]


def data_in(page: str) -> object:
    (data,) = re.findall(r'<pre class="data">(.*?)</pre>', page, re.DOTALL)
    return json.loads(html.unescape(data))


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


def test_the_data_are_what_their_schema_says(report: tuple[str, str]) -> None:
    name, page = report
    jsonschema.validate(data_in(page), schema(name), cls=jsonschema.Draft202012Validator)


def test_no_character_of_a_device_spoils_the_data() -> None:
    unseen = "a\x9b\x7f\u202e\U000e0001\uffffb\u00e9\\"
    versus = comparison_of({"virtual:s25": 1.05})
    page = render_study(replace(versus, failures={"s24": unseen}))
    assert not set("\x9b\x7f\u202e\U000e0001\uffff") & set(page.partition('<pre class="data">')[2])
    data = data_in(page)
    assert isinstance(data, dict)
    assert data["failures"] == {"s24": unseen}
