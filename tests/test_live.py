"""Lines of devices on a terminal: what each does, in so many cells as there are, and how long it still takes."""

import io
import logging
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.logging import RichHandler
from support.sentences import says
from support.synthetic_run import S25, TABS11, make_run

from quadbench.artifacts import LaunchPlan, Variant
from quadbench.artifacts.run_record import SequenceBlock
from quadbench.cli.console import RUN_STAGES, LiveLine, RunConsole, format_line

LINES = [
    ("virtual:s25", LiveLine(activity="measure", detail="3/9, image 12/40, remove-object/per-graph", share=0.25, since=0.0)),
    ("s25@R5CX1234567ABCDEFGH", LiveLine(activity="push", detail="1203.4 of 2056.1 MB, 38.2 MB/s", share=0.585, since=0.0)),
    (
        "virtual:s25?scenario=/a/long/way/to/scenario.yaml&data_mb=512",
        LiveLine(activity="wait", detail="was lost: " * 20, since=0.0),
    ),
    ("telefon-手机-" * 5, LiveLine(activity="measure", detail="步" * 60, share=1.0, since=0.0)),
]


@pytest.mark.parametrize("width", [80, 81, 100, 200])
@pytest.mark.parametrize(("name", "line"), LINES)
def test_a_line_is_as_wide_as_the_terminal_at_most(name: str, line: LiveLine, width: int) -> None:
    assert cell_len(format_line(name, line, 30.0, width).plain) <= width


def test_a_line_says_what_the_device_does_and_how_long_it_still_takes() -> None:
    assert format_line(*LINES[0], 30.0, 100).plain == (
        "virtual:s25 ━━········ measure 3/9, image 12/40, remove-object/per-graph".ljust(87) + " 0:01:30 left"
    )
    says(format_line(*LINES[1], 30.0, 80).plain, "s25@R5CX1234567", "1203.4", "2056.1", "38.2", "MB/s")


def test_a_run_that_goes_on_counts_its_time_from_there() -> None:
    line = LiveLine(activity="measure", share=0.75, begun=0.5, since=0.0)
    assert format_line("local", line, 30.0, 80).plain.endswith("0:00:30 left")


def test_where_nothing_is_known_a_line_says_how_long_it_took() -> None:
    assert (
        format_line("build", LiveLine(activity="", detail="graphs", since=0.0), 61.0, 80).plain
        == "build graphs".ljust(72) + " 0:01:01"
    )


def test_devices_that_wait_and_that_are_done_have_their_lines_too() -> None:
    assert format_line(
        "s25", LiveLine(activity="measured", detail="5 launches in 0:02:10", share=1.0, begun=1.0), 0.0, 80
    ).plain == ("s25 ━━━━━━━━━━ measured 5 launches in 0:02:10".ljust(75) + " done")


def run_on(console: Console, records: Path) -> None:
    with RunConsole(console, RUN_STAGES) as observer:
        observer.stage_step("build", "graphs")
        for device in ("s25", "tabs11"):
            observer.bytes_sent(device, 2**20, 2**21)
            launch = LaunchPlan(
                variant=Variant.SHARED, launch=0, sequence=(SequenceBlock(task="restyle", warmup=1, iterations=3),)
            )
            observer.launch_started(device, launch, 2, 5)
            observer.image_done(device, "restyle", 3)
        observer.device_lost("tabs11", "device 'tabs11' was lost: no such device", 300.0)
        observer.device_back("tabs11", 12.0)
        observer.record_stored(make_run(records).records[0])


def test_all_devices_of_a_run_are_seen_from_the_first_push_to_the_last_launch(tmp_path: Path) -> None:
    out = io.StringIO()
    result = make_run(tmp_path, devices=(S25, TABS11))
    with RunConsole(Console(file=out, force_terminal=True, width=100, height=20, color_system=None), RUN_STAGES) as observer:
        for deployment in result.deployments:
            observer.deploy_done(deployment)
        launch = LaunchPlan(variant=Variant.SHARED, launch=0, sequence=())
        observer.launch_started("virtual:s25", launch, 5, 5)
        observer.record_stored(result.records[0])
    says(out.getvalue(), "virtual:s25", 5, "0:00")
    says(out.getvalue(), "virtual:tabs11")


def test_what_is_logged_meanwhile_stands_above_the_lines_and_afterwards_where_it_did() -> None:
    out = io.StringIO()
    before = Console(file=io.StringIO(), width=100)
    handler = RichHandler(console=before, show_path=False)
    logging.getLogger().addHandler(handler)
    try:
        with RunConsole(Console(file=out, force_terminal=True, width=100, height=20, color_system=None), RUN_STAGES) as observer:
            observer.bytes_sent("s25", 1, 2)
            logging.getLogger("quadbench").warning("it rains")
        assert handler.console is before
    finally:
        logging.getLogger().removeHandler(handler)
    assert re.search(r"(?:^|\n|\r|\x1b\[2K)[^\n]*WARNING +it rains *\n", out.getvalue())
    assert not re.search(r"left[^\n\r\x1b]*WARNING", out.getvalue())


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_has_a_line_for_each_device(width: int, tmp_path: Path) -> None:
    out = io.StringIO()
    run_on(Console(file=out, force_terminal=True, width=width, color_system=None), tmp_path)
    assert "tabs11 was lost" not in out.getvalue()
    says(out.getvalue(), "wait tabs11: the device is back after 12.0 s", snapshot=False)


def test_a_pipe_has_lines_of_what_happened_alone(tmp_path: Path) -> None:
    out = io.StringIO()
    run_on(Console(file=out, force_terminal=False, width=200), tmp_path)
    first, *_, last = out.getvalue().splitlines()
    assert first == "1/5 build"
    assert last.startswith("5/5 measure")
    assert "\x1b" not in out.getvalue()
    assert "━" not in out.getvalue()
    says(out.getvalue(), "tabs11", 300)
