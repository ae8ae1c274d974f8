"""What a device says is shown and never acted on: on a terminal, in a page, in a log, and never without end."""

import argparse
import csv
import io
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from support.sentences import says
from support.synthetic_run import S25, failed, make_run

from quadbench.artifacts import DeviceFacts, LaunchPlan, RunRecord, Variant
from quadbench.artifacts.safe_text import MAX_CHARACTERS, is_plain, one_line, printable
from quadbench.cli import _configure_logging
from quadbench.cli.console import RUN_STAGES, RunConsole, print_error
from quadbench.cli.result import print_result
from quadbench.devices.device import command_error
from quadbench.report.formatting import csv_cell, to_csv, to_markdown
from quadbench.report.html import render_html
from quadbench.report.tables import KPI, kpi_table, named_tables
from quadbench.report.view import report_view
from quadbench.results.layout import Layout

EVIL = "[/foo] [red]x[/] \x1b[2J\x1b]0;title\x07 \u202e<script>\x00"
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_characters_that_a_terminal_acts_on_are_written_out() -> None:
    assert one_line("a\x1b[2Jb\x07\x9b\u202e\u2028\ud800") == r"a\x1b[2Jb\x07\x9b\u202e\u2028\ud800"
    assert printable("a\tb\r\nc\rd") == "a\tb\nc\\rd"


def test_colours_are_dropped() -> None:
    assert one_line("\x1b[1;31mred\x1b[0m and \x1b[38;5;9mplain\x1b[m") == "red and plain"


def test_lines_become_one() -> None:
    assert one_line("first\n\n  second \r\nthird\n") == "first / second / third"


@pytest.mark.parametrize("text", ["x" * 5_000_000, "\x1b" * 5_000_000, "\n" * 5_000_000, " x" * 3000])
def test_a_long_text_is_cut_and_says_so(text: str) -> None:
    line = one_line(text)
    assert len(line) < MAX_CHARACTERS + 50
    assert re.search(r"\.\.\. \(\d+ more characters\)$", line)


def test_what_can_be_shown_stays_as_it_is() -> None:
    text = "Größe 日本 – 12 × 3, [ok] 50 % 🙂"
    assert one_line(text) == text
    assert is_plain(text)
    assert not is_plain("a\nb")


def said_of(record: RunRecord, side: str = "") -> str:
    out = io.StringIO()
    with RunConsole(Console(file=out, force_terminal=False, width=10_000)) as console:
        console.launch_started(record.device.address, LaunchPlan(variant=record.variant, launch=0, sequence=(), side=side), 1, 1)
        console.record_stored(record)
    return out.getvalue()


def test_a_reason_on_the_terminal_is_text_and_no_markup(tmp_path: Path) -> None:
    record = failed(make_run(tmp_path, variants=(Variant.SHARED,)).records[0], EVIL)
    said = said_of(record)
    says(said, "virtual:s25", 0, 1, "21.0", "[/foo]", "\\x1b[2J")
    assert not CONTROLS.search(said.replace("\n", ""))


def test_a_launch_of_a_comparison_says_whose_it_is(tmp_path: Path) -> None:
    record = make_run(tmp_path, variants=(Variant.SHARED,)).records[0]
    said = said_of(record, side=f"B: quickstart with {EVIL}")
    says(said, "virtual:s25", 0, "quickstart")
    assert not CONTROLS.search(said.replace("\n", ""))


def test_an_address_with_brackets_does_not_break_a_bar(tmp_path: Path) -> None:
    record = failed(make_run(tmp_path, variants=(Variant.SHARED,)).records[0], "x")
    device: DeviceFacts = replace(record.device, address=EVIL)
    out = io.StringIO()
    with RunConsole(Console(file=out, force_terminal=True, width=200)) as console:
        console.launch_started(EVIL, LaunchPlan(variant=record.variant, launch=0, sequence=()), 1, 1)
        console.record_stored(replace(record, device=device))
    assert "\x1b[2J" not in out.getvalue()
    assert "\x07" not in out.getvalue()


def test_an_error_on_the_terminal_is_text_of_bounded_length(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(EVIL + "x" * 5_000_000)
    said = capsys.readouterr().err
    says(said, "[/foo]", "\\x1b[2J")
    assert not CONTROLS.search(said.replace("\n", ""))
    assert len(said) < 30_000


def test_a_log_line_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    level, handlers = logging.getLogger("quadbench").level, logging.getLogger().handlers[:]
    try:
        _configure_logging(1)
        logging.getLogger("quadbench.devices").warning("said: %s", EVIL)
    finally:
        logging.getLogger("quadbench").setLevel(level)
        logging.getLogger().handlers[:] = handlers
    said = capsys.readouterr().err
    assert "[/foo]" in said
    assert not CONTROLS.search(said.replace("\n", ""))


def test_a_page_shows_what_a_device_said(tmp_path: Path) -> None:
    result = make_run(tmp_path, change=lambda record: replace(failed(record, EVIL), state={f"before.{EVIL}": EVIL}))
    page = render_html(result, Layout(tmp_path))
    assert "[/foo] [red]x[/] \\x1b[2J" in page
    assert not CONTROLS.search(page)
    assert "<script>" not in page


def test_a_command_that_failed_is_told_without_its_codes() -> None:
    error = command_error(["sh"], "device 'x'", 3, f"{EVIL}\n" * 100_000)
    assert is_plain(str(error))
    assert len(str(error)) < 2 * MAX_CHARACTERS


def test_a_devices_name_is_one_cell_in_every_table_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = replace(S25, address=f"=cmd|{EVIL}\n| x |", title=EVIL, serial=EVIL)
    other = replace(evil, address="@b\r\nc")
    result = make_run(tmp_path, devices=(evil, other))
    table = kpi_table(result)
    written = (
        to_csv(named_tables(result, KPI)),
        to_markdown(table),
        to_markdown(kpi_table(make_run(tmp_path, devices=(evil,)))),
    )
    for text in written:
        assert not CONTROLS.search(text.replace("\n", ""))
    rows = list(csv.reader(io.StringIO(written[0])))
    assert {row[1][:5] for row in rows[1:]} == {"'=cmd", "'@b /"}
    assert len(written[0].splitlines()) == len(rows)
    assert sum(line.startswith("| ") for line in written[1].splitlines()) == len(table.rows) + 2
    named = make_run(tmp_path, devices=(replace(evil, address=f"s{EVIL}\n| x |"),))  # of which a path can be made
    assert not CONTROLS.search(render_html(named, Layout(tmp_path)))
    print_result(
        argparse.Namespace(full=True, json=False, layout=Layout(tmp_path)),
        report_view(named, Layout(tmp_path)),
        tmp_path / "x.html",
    )
    print_result(
        argparse.Namespace(full=False, json=False, layout=Layout(tmp_path)),
        report_view(named, Layout(tmp_path)),
        tmp_path / "x.html",
    )
    assert not CONTROLS.search(capsys.readouterr().out.replace("\n", ""))


@pytest.mark.parametrize(
    ("text", "cell"),
    [("-1.5", "-1.5"), ("+1e3", "+1e3"), ("-x", "'-x"), ("=1+1", "'=1+1"), ("@a", "'@a"), ("\t=1", "'=1"), ("a=b", "a=b")],
)
def test_a_spreadsheet_takes_no_cell_for_a_formula(text: str, cell: str) -> None:
    assert csv_cell(text) == cell


def test_each_line_of_a_run_says_which_stage_of_how_many_it_is(tmp_path: Path) -> None:
    record, out = make_run(tmp_path, variants=(Variant.SHARED,)).records[0], io.StringIO()
    with RunConsole(Console(file=out, force_terminal=False, width=10_000), RUN_STAGES) as console:
        console.stage_step("sweep", "1 of 2: precision.lora=int16")
        console.artifact_reused("bundle", "a" * 64)
        for step in ("unet", "vae_decoder"):
            console.stage_step("compile", step)
        console.launch_started(record.device.address, LaunchPlan(variant=record.variant, launch=0, sequence=()), 2, 5)
        console.record_stored(record)
        console.stage_step("sweep", "2 of 2: precision.lora=int8")
    said = out.getvalue().splitlines()
    assert said[0] == "sweep 1 of 2: precision.lora=int16"
    says(said[1], "1/5")
    assert said[2] == "3/5 compile"
    says(said[3], "5/5", "virtual:s25", 0, 2, 5)
    assert said[4:] == ["sweep 2 of 2: precision.lora=int8"]
