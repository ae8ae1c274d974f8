"""Lists on a terminal of 80 characters and more: nothing is cut, no name is broken, and every line fits."""

import logging
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.hand_made import EVEN, figure, point, sweep_of
from support.stored_run import RUN, stored_below

from quadbench.cli import _configure_logging, main
from quadbench.cli.devices import _print
from quadbench.devices.lab.health import Health, PhoneCondition
from quadbench.devices.lab.inventory import Sighting
from quadbench.devices.lab.leases import Claim, Claims
from quadbench.devices.lab.overview import FarmPhone
from quadbench.report.run_line import study_json
from quadbench.results.layout import Layout

NAMES = {
    "targets": ("ai-hub-samsung-galaxy-s25-family-precompiled-qnn-onnx", "onnxruntime-cpu-x86_64", "virtual:s25-exynos"),
    "devices": ("virtual:s25-exynos", "virtual:tabs11", "Samsung Galaxy S25"),
    "doctor": ("compiling with Qualcomm AI Hub", "ANDROID_NDK_HOME", "the harness for this machine"),
    "runs": (RUN, "quickstart", "virtual:s25"),
}


@pytest.fixture(params=[80, 100])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A results folder with a run, in which nothing is written."""
    return stored_below(tmp_path_factory.mktemp("stored"))


@pytest.mark.parametrize("command", NAMES)
def test_every_list_fits_and_breaks_no_name(
    command: str, width: int, old_run: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    main([command, "--results", str(old_run.root)])
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
    _print([phone], [])
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


def test_a_whole_sweep_fits_in_parts_that_break_no_value_and_no_word(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    titles = [
        "PSNR to teacher",
        "ST-LPIPS",
        "SQNR of noise predictions",
        "SQNR of last latents",
        "U-Net step",
        "Peak memory",
        "PSNR to truth",
        "SSIM",
        "End to end",
        "All files",
    ]
    told = tuple(replace(figure(title, EVEN), title=title) for title in titles)
    swept = sweep_of(*(replace(point(value, psnr=EVEN), figures=told) for value in ("int16", "int8")))
    folder = Layout(tmp_path).sweep(swept.sweep_id)
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(study_json(swept))
    assert main(["show", swept.sweep_id, "--full", "--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.partition("Shared graph;")[0].splitlines()
    assert max(map(len, lines)) <= width
    words = "\n".join(lines)
    assert words.count("100.0 ± 0.1") == 2 * len(titles)
    assert words.count("int16") == words.count("lora") - 1 > 1  # the title names the key too
    assert all(re.search(rf"\b{re.escape(word)}\b", words) for title in titles for word in title.split())


def test_dates_are_those_of_iso_8601(
    old_run: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    main(["runs", "--results", str(old_run.root)])
    assert "2026-01-02 03:04" in capsys.readouterr().out


def test_what_is_logged_has_the_date_of_iso_8601(capsys: pytest.CaptureFixture[str]) -> None:
    _configure_logging(0)
    logging.getLogger("quadbench").warning("it rains")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WARNING +it rains", capsys.readouterr().err)
