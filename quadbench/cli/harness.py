"""Harness: build the native program for this machine."""

import argparse
from typing import Any

from quadbench.cli.console import print_json, print_text
from quadbench.cli.options import add_action, add_group
from quadbench.harness.program import ensure_harness


def add(commands: Any) -> None:
    """Add `quadbench harness` and its actions to the commands."""
    actions = add_group(commands, "harness")
    add_action(actions, "build", run_build, "build it for this machine, unless it is there, and print its path")


def run_build(options: argparse.Namespace) -> int:
    path = ensure_harness(options.layout.programs)
    if options.json:
        print_json({"harness": str(path)})
    else:
        print_text(str(path))
    return 0
