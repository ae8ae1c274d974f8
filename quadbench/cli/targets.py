"""The command `targets`: list all compile targets with their devices, and what this machine lacks to compile for each target."""

import platform
from collections.abc import Iterator
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from quadbench.cli.console import print_answer, print_broken_profiles
from quadbench.cli.options import Options, Subparsers, add_command
from quadbench.compile.availability import Availability, availability
from quadbench.target.profile import KnownTarget, known_targets, load_profiles, local_profile

_WIDTH, _INDENT = 80, 9


def add(commands: Subparsers) -> None:
    add_command(commands, "targets", run)


def run(options: Options) -> int:
    known = known_targets([*load_profiles(), local_profile()], platform.machine())
    rows = [(target, availability(target.target)) for target in known]
    text = "\n".join(line for target, state in rows for line in _lines(target, state))
    print_answer(options, [_row(target, state) for target, state in rows], text)
    print_broken_profiles()
    return 0


def _row(target: KnownTarget, state: Availability) -> dict[str, Any]:
    return {
        "target": target.key,
        "backend": target.target.backend,
        "profiles": target.profiles,
        "addresses": target.addresses,
        "is_ready": state.is_ready,
        **asdict(state),
    }


def _lines(target: KnownTarget, state: Availability) -> Iterator[str]:
    """Yield a compile target's text lines: `ready` or `missing` with its key, then its compiler, devices and missing parts."""
    yield f"{'ready' if state.is_ready else 'missing':{_INDENT}}{target.key}"
    compiler = " ".join(filter(None, (target.target.backend, state.version)))
    runs_on = (
        f"runs on {', '.join(target.addresses)}" if target.addresses else f"no address runs it ({', '.join(target.profiles)})"
    )
    lacks = () if state.is_ready else (f"lacks {state.missing}", state.hint)
    for words in filter(None, (f"{compiler}; {runs_on}", *lacks)):
        yield from wrap(words, _WIDTH, initial_indent=" " * _INDENT, subsequent_indent=" " * _INDENT, break_long_words=False)
