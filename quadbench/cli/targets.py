"""Targets: what can be compiled for on this machine, what is missing for the others, and who runs each."""

import argparse
import platform
from collections.abc import Sequence
from typing import Any

from quadbench.cli.console import print_broken_profiles, print_json, print_text
from quadbench.cli.options import add_command
from quadbench.compile.availability import Availability, availability
from quadbench.target.known import KnownTarget, known_targets
from quadbench.target.profile import load_profiles, local_profile


def add(commands: Any) -> None:
    """Add `quadbench targets` to the commands."""
    add_command(commands, "targets", run)


def run(options: argparse.Namespace) -> int:
    known = known_targets([*load_profiles(), local_profile()], platform.machine())
    rows = [(target, availability(target.target)) for target in known]
    if options.json:
        print_json([_row(target, state) for target, state in rows])
    else:
        print_text(_table(rows))
    print_broken_profiles()
    return 0


def _row(target: KnownTarget, state: Availability) -> dict[str, Any]:
    return {
        "target": target.key,
        "backend": target.target.backend,
        "profiles": target.profiles,
        "addresses": target.addresses,
        "is_ready": state.is_ready,
        "version": state.version,
        "missing": state.missing,
        "hint": state.hint,
    }


def _table(rows: Sequence[tuple[KnownTarget, Availability]]) -> str:
    """Return a table in lines of any width, since keys are there to be copied; below it what is missing."""
    cells = [
        (
            "ready" if state.is_ready else "missing",
            target.key,
            " ".join(filter(None, (target.target.backend, state.version))),
            ", ".join(target.addresses) or f"no run yet ({', '.join(target.profiles)})",
        )
        for target, state in rows
    ]
    widths = [max(map(len, column)) for column in zip(("", "target", "compiled by", ""), *cells, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (("", "target", "compiled by", "runs on"), *cells)
    ]
    missing = dict.fromkeys(f"{state.missing}\n  {state.hint}" for _, state in rows if not state.is_ready)
    return "\n".join((*lines, "", *(f"missing: {text}" for text in missing)))
