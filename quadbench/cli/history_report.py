"""History report: the nights of cases on devices, and `--html` -> a page that can be forwarded, at the path that was named."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from quadbench.cli.console import print_text
from quadbench.cli.options import next_command, output_file
from quadbench.nightly.history import last_change
from quadbench.nightly.history_formats import HistoryPage, Told, render_history
from quadbench.report.page import write_page


def add_html(parser: argparse.ArgumentParser) -> None:
    """Add `--html`."""
    parser.add_argument(
        "--html", type=output_file, metavar="FILE", help="also write a page there that can be forwarded: one file, no script"
    )


def write_history(options: argparse.Namespace, told: Sequence[Told]) -> None:
    """Write the page and say where it is.

    Raises:
        StorageError: it cannot be written.
    """
    now = datetime.now(UTC)
    page = HistoryPage(
        case=options.case,
        told=told,
        commands=_commands(options),
        next_step=_next_step(options, told, now),
        made_at=now,
    )
    write_page(options.html, render_history(page))
    if not options.json:
        print_text(f"Report: {options.html}")


def _commands(options: argparse.Namespace) -> dict[str, str]:
    asked = [options.case] if options.case else []
    asked += ["--devices", options.devices] if options.devices else []
    asked += ["--all"] if options.all else []
    return {
        "The same again": next_command(options, "history", *asked, "--html", str(options.html)),
        "As data": next_command(options, "history", *asked, "--json"),
    }


def _next_step(options: argparse.Namespace, told: Sequence[Told], now: datetime) -> dict[str, str]:
    """Return what to do about the latest change that nobody wants and nobody has acknowledged, by what it is for.

    Where there is none, that nothing has to be done, and how long that is so.
    """
    changes = [change for one in told if (change := last_change(one.history, now))]
    latest = max((change for change in changes if change.is_open), key=lambda change: change.segment.since, default=None)
    if latest is None:
        until = min((change.word.until for change in changes if change.word), default=None)
        ends = f" until {until:%Y-%m-%d}, when an acknowledgement ends" if until else ""
        return {f"Nothing has to be done{ends}": ""}
    on_it = ("history", latest.history.case, "--devices", latest.history.address)
    steps: dict[str, tuple[str, ...]] = {}
    if "files" in latest.segment.changed:
        nights = latest.before.last, latest.segment.first
        steps["If this is not intended, launch both again, in turn, to see whether the files are why"] = (
            *on_it,
            "--bisect",
            *nights,
        )
    else:
        steps["If this is not intended, see what is wrong with the device"] = ("doctor", "--device", latest.history.address)
    steps["If it is intended, take it as the new level"] = (*on_it, "--acknowledge", "REASON", "--until", "30d")
    return {purpose: next_command(options, *command) for purpose, command in steps.items()}
