"""Command line: parse, call one function, print. Results go to stdout, everything else to stderr. A module for each command."""

import argparse
import logging
import os
from collections.abc import Sequence
from importlib.metadata import version

from rich.console import Console
from rich.logging import RichHandler

from quadbench.cli import (
    adapter,
    compile,
    devices,
    doctor,
    harness,
    lint,
    quality,
    recipe,
    report,
    run,
    sensitivity,
    sweep,
    targets,
)
from quadbench.console import print_error, print_json
from quadbench.errors import QuadbenchError

COMMANDS = (  # in the order of --help
    run,
    sweep,
    compile,
    devices,
    targets,
    doctor,
    report,
    adapter,
    lint,
    sensitivity,
    quality,
    recipe,
    harness,
)
INTERRUPTED = 130
# What keeps libraries from talking, as they read it when they are imported. Whoever sets one of these is heard.
_QUIET_LIBRARIES = {
    "TORCH_LOGS": "-onnx",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
_EXIT_CODES = """\
exit codes: 0 success; 1 unexpected error; 2 wrong input; 3 damaged artifact; 4 build or compilation failed;
5 device absent, lost or full; 6 the harness failed on a device; 7 a program or package is missing; 130 Ctrl-C.
What was measured before a failure is stored."""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="quadbench",
        description="One quantized base and many LoRAs on phones: build, deploy, measure, report.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"quadbench {version('quadbench')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = build_parser().parse_args(arguments)
    _configure_logging(options.verbose)
    try:
        code: int = options.run(options)
    except QuadbenchError as error:
        return _fail(options, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(options, "interrupted; what was measured is stored", INTERRUPTED)
    return code


def _fail(options: argparse.Namespace, message: str, code: int) -> int:
    if options.json:
        print_json({"error": message, "exit_code": code})
    print_error(message)
    return code


def _configure_logging(verbosity: int) -> None:
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    handler = RichHandler(console=Console(stderr=True), show_path=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("quadbench").setLevel(level)
    if verbosity == 0:
        for variable, value in _QUIET_LIBRARIES.items():
            os.environ.setdefault(variable, value)
