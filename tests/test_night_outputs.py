"""A night is told to CI and chats in their own formats, and no text of others is a command, a fault or a mention there."""

import argparse
import json
import os
import re
import shlex
import socket
import subprocess
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml
from support.chat import Chat, running_chat
from support.night_samples import attacked_night, clean_night, measurement, night_id, sample_night, series
from support.report_page import Page
from support.sentences import raising, reads, says

from quadbench.artifacts.night_record import Night
from quadbench.cli import build_parser
from quadbench.cli.nightly import add_outputs, write_outputs
from quadbench.cli.options import common_options
from quadbench.errors import ServiceError, UserError
from quadbench.nightly import exports
from quadbench.nightly.exports import (
    check_address,
    night_junit,
    night_message,
    post_night,
    send,
)
from quadbench.nightly.night_report import NightResult
from quadbench.report.night import NightView, night_view
from quadbench.report.night_formats import night_json
from quadbench.results.engine import database_of, open_engine
from quadbench.results.layout import Layout
from quadbench.results.nights import NightStore

SCHEMA = Path(__file__).parents[1] / "docs/schemas/night.schema.json"
PAGE = (Path(__file__).parents[1] / "docs/nightly.md").read_text()
Told = Callable[..., tuple[bool, str, str]]


@pytest.fixture(scope="module")
def view() -> NightView:
    return night_view(sample_night(), series())


@pytest.fixture(scope="module")
def attacked() -> NightView:
    return night_view(*attacked_night())


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_chat() as chat:
        yield chat


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A results folder whose database has the sample's nights."""
    layout = Layout(tmp_path / "results")
    layout.root.mkdir()
    engine = open_engine(database_of(layout))
    nights = NightStore(engine)
    for number in (18, 19, 20):
        nights.begin(night_id(number), "phones", "0.1.0", [])
        nights.store(measurement("restyle", "s25", number))
    engine.dispose()
    return layout


@pytest.fixture
def told(layout: Layout, capsys: pytest.CaptureFixture[str]) -> Told:
    """What came of telling a night with some options."""

    def call(
        *words: str, night: Night | None = None, farm: str | None = None, budget: float | None = None
    ) -> tuple[bool, str, str]:
        parser = argparse.ArgumentParser(parents=[common_options()])
        add_outputs(parser)
        parser.set_defaults(file=Path("night.yaml"), farm=farm, budget=budget)
        engine = open_engine(database_of(layout))
        performed = NightResult.from_night(night or sample_night(), NightStore(engine))
        engine.dispose()
        is_told = write_outputs(parser.parse_args(words), performed, layout)
        return is_told, *capsys.readouterr()

    return call


def test_the_commands_of_a_farm_s_night_name_the_farm_without_its_password_and_its_budget(told: Told, layout: Layout) -> None:
    told(farm="postgresql://ana:secret@db/lab", budget=21600.0)
    report = Page(layout.night(night_id(20)).joinpath("night.html").read_text()).text
    words = "quadbench nightly run night.yaml{} --farm 'postgresql://ana:***@db/lab' --budget 6h"
    assert words.format("") in report
    assert words.format(f" --night {night_id(20).removeprefix('phones-')} --json") in report


def test_junit_has_a_suite_for_each_device_and_a_test_for_each_figure(view: NightView) -> None:
    root = ET.fromstring(night_junit(view))
    assert {suite.get("name") for suite in root} == {"s25", "tabs11", "s24", "s23", "a55"}
    assert [root.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["30", "2", "2", "5"]
    (failure,) = root.iterfind("testsuite[@name='s25']/testcase[@classname='restyle'][@name='End to end, restyle']/failure")
    reads(failure.get("message"), "5.2", "4.3", "6.1")
    says(failure.text, "quadbench history", "restyle", "--devices", "s25")
    (error, _) = root.iterfind("testsuite[@name='s24']/testcase/error")
    says(error.get("message"))


def test_a_figure_that_is_clean_is_a_test_that_passed(view: NightView) -> None:
    root = ET.fromstring(night_junit(view))
    cases = root.findall("testsuite[@name='a55']/testcase[@classname='restyle']")
    reads([case.get("name") for case in cases], "restyle")
    assert not [child for case in cases for child in case]


def test_what_was_measured_and_not_ruled_yet_has_not_passed() -> None:
    begun = replace(sample_night(), rulings=(), ended_at=None)
    root = ET.fromstring(night_junit(night_view(begun, series())))
    assert root.get("skipped") == root.get("tests") == "24"


def test_an_attack_is_no_fault_of_the_xml(attacked: NightView) -> None:
    root = ET.fromstring(night_junit(attacked))
    assert {node.tag for node in root.iter()} == {
        *("testsuites", "testsuite", "testcase", "properties", "property", "failure", "error", "skipped")
    }


def test_the_message_to_a_chat_is_plain_text_with_the_sentence(view: NightView) -> None:
    message = night_message(view)
    (block,) = message["blocks"]
    assert block["text"]["type"] == "plain_text"
    assert block["text"]["text"].startswith(f"REGRESSION: night phones-2026-01-21\n{view.sentence}")
    assert message["mrkdwn"] is False


def test_no_attack_is_a_mention_or_a_link_in_a_chat(attacked: NightView) -> None:
    message = night_message(attacked)
    assert not {"<", ">"} & {*message["text"]}
    for text in (message["text"], message["blocks"][0]["text"]["text"]):
        assert "@here" not in text
        assert "](" not in text
        assert len(text) <= 3000


def test_a_night_is_posted_once_until_it_comes_to_something_else(view: NightView, chat: Chat, tmp_path: Path) -> None:
    told = tmp_path / "night" / "webhook.json"
    assert post_night(view, chat.address, told)
    assert not post_night(view, chat.address, told)
    assert chat.posted == [night_message(view)]
    assert post_night(night_view(clean_night(), series()), chat.address, told)
    assert len(chat.posted) == 2


def test_a_webhook_that_refuses_or_leads_elsewhere_is_said_without_its_address(
    view: NightView, chat: Chat, tmp_path: Path
) -> None:
    with running_chat() as other:
        for status in (404, 302, 307):
            chat.status, chat.elsewhere = status, other.address
            with raising(ServiceError, status) as refusal:
                post_night(view, chat.address, tmp_path / "told.json")
            assert "secret" not in str(refusal.value)
        assert other.posted == []
    assert not (tmp_path / "told.json").exists()


def test_a_webhook_that_nobody_answers_is_said_without_its_address() -> None:
    with raising(ServiceError, "Connection refused") as refusal:
        send({}, "http://127.0.0.1:1/services/secret")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "address",
    [
        *("", "secret", "ftp://host/secret", "file:///etc/secret", "http://", "http://h\n/secret", "http://h/ secret"),
        *(
            "http://u:secret@h/",
            "http://[::1/secret",
            "http://h:99999/secret",
            f"http://h/{'secret' * 1000}",
            "javascript:secret",
            "http://secret..b/",
            f"http://{'secret' * 12}.example/",
        ),
    ],
)
def test_what_is_no_web_address_is_refused_and_not_repeated(address: str) -> None:
    with raising(UserError) as refusal:
        check_address(address)
    assert "secret" not in str(refusal.value)


def test_the_json_is_what_its_schema_says(view: NightView, attacked: NightView) -> None:
    schema = json.loads(SCHEMA.read_text())
    for told in (view, attacked, night_view(clean_night(), {})):
        jsonschema.validate(json.loads(night_json(told)), schema, cls=jsonschema.Draft202012Validator)
    told = json.loads(night_json(view))
    assert (told["schema_version"], told["outcome"], told["counts"]["CLEAN"]) == (1, "REGRESSION", 3)
    assert told["findings"][0]["figures"][0]["low"] == 1.043


def test_report_and_json_lie_in_the_night_s_folder_and_the_sentence_is_printed_last(told: Told, layout: Layout) -> None:
    is_told, out, err = told()
    folder = layout.night(night_id(20))
    assert (is_told, err) == (True, "")
    assert sorted(path.name for path in folder.iterdir()) == ["night.html", "night.json"]
    assert "<svg" in (folder / "night.html").read_text()  # the earlier nights come from the database
    says(out, 2, 1, 3)
    assert f"Report: {folder / 'night.html'}" in out
    says(out, "quadbench history", "restyle", "--devices", "s25", "--results", layout.root)


def test_json_is_all_that_json_prints(told: Told, layout: Layout) -> None:
    _, out, _ = told("--json")
    assert json.loads(out) == json.loads((layout.night(night_id(20)) / "night.json").read_text())


def test_files_are_written_where_they_are_asked_for(told: Told, tmp_path: Path) -> None:
    told("--junit", str(tmp_path / "ci/junit.xml"))
    assert ET.parse(tmp_path / "ci/junit.xml").getroot().get("failures") == "2"


@pytest.mark.parametrize("what", ["", "/dev/null", "."])
def test_what_is_no_file_is_refused_before_anything_is_done_and_stays_what_it_is(
    what: str, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        told("--junit", what)
    says(capsys.readouterr().err)
    assert Path("/dev/null").is_char_device()


def test_an_answer_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_PATIENCE_S", 0.3)
    ended = threading.Event()

    def drip(server: socket.socket) -> None:
        with server.accept()[0] as connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.05):
                connection.sendall(b"X")

    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip, args=(server,), daemon=True)
        dripping.start()
        with raising(ServiceError, "0.3"):
            send({}, f"http://127.0.0.1:{server.getsockname()[1]}/")
        ended.set()
        dripping.join()


def test_what_lies_in_the_way_of_a_night_s_own_files_costs_nothing_else(told: Told, layout: Layout, tmp_path: Path) -> None:
    (layout.night(sample_night().night_id) / "night.json").mkdir(parents=True)
    is_told, out, err = told("--junit", str(tmp_path / "junit.xml"))
    assert not is_told
    assert "night.json" in err
    assert (tmp_path / "junit.xml").exists()
    assert "3 clean." in out


def test_what_cannot_be_written_costs_nothing_else(told: Told, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    is_told, out, err = told("--junit", str(tmp_path / "file/junit.xml"))
    assert not is_told
    says(err)
    assert "3 clean." in out


def test_the_webhook_of_the_environment_is_told(told: Told, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUADBENCH_WEBHOOK", chat.address)
    is_told, out, err = told()
    assert (is_told, len(chat.posted)) == (True, 1)
    assert "secret" not in out + err


def test_a_wrong_webhook_is_refused_before_anything_is_done(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        told("--webhook", "ftp://secret")
    assert "secret" not in capsys.readouterr().err


def test_every_command_line_of_the_page_on_ci_is_one_that_quadbench_takes() -> None:
    lines = [line.strip() for line in PAGE.splitlines() if line.strip().startswith("quadbench nightly")]
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(re.split(r" 2>| > ", line)[0])[1:]
        assert build_parser(["nightly"]).parse_args(words).command == "nightly"


def test_the_workflow_of_the_page_on_ci_lets_pass_what_is_the_device_s_doing(tmp_path: Path) -> None:
    workflows = [
        yaml.safe_load(text).get("jobs", {}) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    ]
    (steps,) = (jobs["night"]["steps"] for jobs in workflows if "night" in jobs)
    script = next(step["run"] for step in steps if step.get("name") == "Perform the night")
    (tmp_path / "quadbench").write_text('#!/bin/sh\nexit "$CODE"\n')
    (tmp_path / "quadbench").chmod(0o755)
    passed = []
    for code in range(6):
        place = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RESULTS": "results", "CODE": str(code)}
        result = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", script], cwd=tmp_path, env=place, check=False)
        passed.append(result.returncode)
    assert passed == [0, 1, 2, 0, 4, 0]
