"""Command line: parse, call one function, print. Results go to stdout, everything else to stderr.

Each command is a module of this package, which is imported only when it is called.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from typing import Any, NoReturn

from quadbench.cli.commands import COMMANDS, OWN_EXIT_CODES, listed

UNEXPECTED, WRONG_INPUT = 1, 2
PIPE_LEFT = 141  # as a shell says of a program that ends by SIGPIPE
# These keep libraries quiet, which read them when they are imported. A value that the user has set stays.
_QUIET_LIBRARIES = {
    "TORCH_LOGS": "-onnx",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
# Everything that a recipe names lies on this machine, so a library that asks the network has missed a file.
_OFFLINE_LIBRARIES = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")  # read by ONNX Runtime when it is loaded
_PURPOSE = "One quantized base and many LoRAs on phones: build, deploy, measure, report."
_AFTERWORD = """\
exit codes:
  0    success
  1    unexpected error
  2    wrong input
  3    damaged artifact, or results that cannot be written
  4    build or compilation failed
  5    device absent, lost or full
  6    the harness failed on a device
  7    a program or package is missing
  8    a condition of --fail-if holds
  129  SIGHUP
  130  Ctrl-C
  141  nobody reads the output any more
  143  SIGTERM
nightly alone: 1 error, 2 regression, 3 inconclusive, 4 missing, 5 environment

What was measured before a failure is stored.
`quadbench COMMAND --help` explains a command."""


def build_parser(called: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Return the parser. Only the modules of the commands that are `called` are imported; the others are mere names."""
    parser = _Parser(
        prog="quadbench",
        usage="quadbench [-h] [--version] COMMAND ...",
        description=f"{_PURPOSE}\n\n{listed()}",
        epilog=_AFTERWORD,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", prog="quadbench", help=argparse.SUPPRESS)
    for name, purpose in COMMANDS.items():
        if name in called:
            import_module(f"{__name__}.{name}").add(commands)
        else:
            commands.add_parser(name, description=purpose)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. SIGTERM and SIGHUP end it as Ctrl-C does."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    with _interrupting_signals() as received:
        try:
            return _main(words, received)
        except OSError:
            if signal.SIGHUP not in received:
                raise
            return _ended_by(received)  # the terminal is gone, and whoever would read why with it


@contextmanager
def _interrupting_signals() -> Iterator[list[signal.Signals]]:
    """Let the signals that ask a process to end interrupt it. One that whoever started it has turned off, as nohup, stays off."""
    received: list[signal.Signals] = []

    def interrupt(number: int, _frame: object) -> None:
        received.append(signal.Signals(number))
        if len(received) == 1:  # a closed terminal may send two, and the second must not cut off what is being stored
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()  # no other may set them
    taken = [number for number in (signal.SIGTERM, signal.SIGHUP) if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _ended_by(received: Sequence[signal.Signals]) -> int:
    """Return the exit code of a command that was interrupted, as shells count: 130 for Ctrl-C, which is no signal of these."""
    return 128 + next(iter(received), signal.SIGINT)


def _main(words: Sequence[str], received: Sequence[signal.Signals]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    try:
        options = build_parser([command] if command else ()).parse_args(words)

        from quadbench.cli.console import Output, PipeLeftError
        from quadbench.errors import QuadbenchError
        from quadbench.results.disk import require_folder, staying, storing

        _configure_logging(options.verbose)
    except _UsageError as error:
        _refuse(words, str(error), UNEXPECTED if command in OWN_EXIT_CODES else WRONG_INPUT)
    except (KeyboardInterrupt, ImportError) as error:  # a command takes half a second to be imported
        if not _is_interrupt(error):
            raise
        sys.stderr.write(f"error: {_cause(received)}; nothing was begun\n")
        return _ended_by(received)
    try:
        root = options.layout.root
        require_folder(root)
        with redirect_stdout(Output(sys.stdout)) as output, staying(root), storing(root):
            code: int = options.run(options)
            output.flush()
    except PipeLeftError:
        return PIPE_LEFT
    except QuadbenchError as error:
        return _fail(options, str(error), UNEXPECTED if options.command in OWN_EXIT_CODES else error.exit_code)
    except (KeyboardInterrupt, ImportError) as error:
        if not _is_interrupt(error):
            raise
        return _fail(options, f"{_cause(received)}; {_kept(options, error)}", _ended_by(received))
    except Exception as error:
        _tell_machines(options.json, f"unexpected {type(error).__name__}: {error}", UNEXPECTED)
        raise
    return code


class _UsageError(Exception):
    """The error of a command line that no command takes."""


class _Parser(argparse.ArgumentParser):
    """The parser of a command; what is wrong with a command line is raised, also a word that is empty.

    An empty variable of a script must not mean the working folder, or what an option is where it is not given.
    """

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if "" in arg_strings and action.nargs != argparse.PARSER:  # which takes all that is a command's
            raise argparse.ArgumentError(action, "expected a word, found an empty one")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{self.format_usage()}{self.prog}: error: {message}")


def _refuse(words: Sequence[str], message: str, code: int) -> NoReturn:
    """Leave with an exit code; `--json` may be cut short, and stands somewhere in what was not understood."""
    from quadbench.artifacts.names import printable

    wants_json = any(len(word) > 2 and "--json".startswith(word) for word in words)
    _tell_machines(wants_json, message.partition("error: ")[2], code)
    sys.stderr.write(f"{printable(message)}\n")
    raise SystemExit(code)


class _Version(argparse.Action):
    """The option that prints the version, which is looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"quadbench {version('quadbench')}\n")
        parser.exit()


def _is_interrupt(error: BaseException | None) -> bool:
    """Say whether it began with Ctrl-C, of which libraries in C make an ImportError while they are loaded."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def _cause(received: Sequence[signal.Signals]) -> str:
    return f"ended by {received[0].name}" if received else "interrupted"


def _kept(options: argparse.Namespace, interrupt: BaseException) -> str:
    from quadbench.cli.options import next_command
    from quadbench.errors import FarmGoesOn, RunInterrupted

    if isinstance(interrupt, FarmGoesOn):
        return str(interrupt)
    if not isinstance(interrupt, RunInterrupted):
        return "what was finished is kept"
    run_id = interrupt.run_id
    again, report = next_command(options, "run", "--resume", run_id), next_command(options, "report", run_id)
    return f"what was measured is stored as run {run_id}\nto go on: {again}\nto see what there is: {report}"


def _fail(options: argparse.Namespace, message: str, code: int) -> int:
    from quadbench.cli.console import print_error

    _tell_machines(options.json, message, code)
    print_error(message)
    return code


def _tell_machines(wants_json: bool, message: str, code: int) -> None:
    from quadbench.cli.console import print_json

    if wants_json:
        print_json({"error": message, "exit_code": code})


def _configure_logging(verbosity: int) -> None:
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    from quadbench.artifacts.names import printable

    class PrintableFormatter(logging.Formatter):
        """The formatter of lines that may quote a device: no code in them reaches the terminal."""

        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    handler = RichHandler(
        console=Console(stderr=True), show_path=False, rich_tracebacks=False, log_time_format="%Y-%m-%d %H:%M:%S"
    )
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("quadbench").setLevel(level)
    os.environ.update(_OFFLINE_LIBRARIES)
    os.environ.setdefault(*_NO_TELEMETRY)
    if verbosity == 0:
        for variable, value in _QUIET_LIBRARIES.items():
            os.environ.setdefault(variable, value)
