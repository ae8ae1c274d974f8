"""The command `completion`: print a script with which a shell completes quadbench's commands and options."""

import argparse
from typing import Any

from quadbench.cli.commands import COMMANDS
from quadbench.cli.console import print_answer
from quadbench.cli.options import Options, Subparsers, add_command
from quadbench.errors import package_hint, requires_package

_SHELLS = ("bash", "zsh", "tcsh")


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "completion", run)
    parser.add_argument(
        "shell", choices=_SHELLS, help="such as: quadbench completion bash > ~/.local/share/bash-completion/completions/quadbench"
    )


def run(options: Options) -> int:
    from quadbench.cli import build_parser

    with requires_package("completion", hint=package_hint("shtab")):
        import shtab
    parser = build_parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            action.help = None  # shtab completes commands that --help lists; ours lists them itself
            action._choices_actions = [action._ChoicesPseudoAction(name, [], purpose) for name, purpose in COMMANDS.items()]
    _complete_files(parser, shtab.FILE)
    script = shtab.complete(parser, shell=options.shell)
    print_answer(options, {"shell": options.shell, "script": script}, script)
    return 0


def _complete_files(parser: argparse.ArgumentParser, files: dict[str, Any]) -> None:
    """Let each option and argument that takes a text complete the names of files, as shells do without a script."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _complete_files(child, files)
        elif action.nargs != 0 and not action.choices:
            action.complete = files  # type: ignore[attr-defined]
