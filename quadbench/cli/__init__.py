"""The command line: parse arguments, call one function, print the result to stdout and everything else to stderr.

completion.py      completion of commands in a shell
commands.py        names, groups and one-line descriptions of all commands
options.py         common options such as --results; durations, numbers, output files
console.py         live progress, JSON output, table layout, a closed or full stdout
device_options.py  --devices, --retries, --budget, --keep-going; waiting for busy devices
run_source.py      recipe, bundle or interrupted run; runs on a farm and --farm
result.py          printed figures of runs and studies; --fail-if
run.py             run a recipe or bundle, --resume, --dry-run
compare.py         launch two recipes or builds in turn
sweep.py           run a recipe with several values of its keys
nightly.py         nights: run, plan, freeze; JUnit and webhook outputs
history.py         changes of a nightly case; --acknowledge, --bisect
runs.py            list of stored runs, sweeps and comparisons
show.py            a stored result again, without writing files
report.py          a stored result's report again, or its figures as CSV, Markdown
serve.py           start of the live page: host, port, token
quality.py         scores of images against references
samples.py         export of measured values as CSV
prune.py           removal of old runs and left-over files
store.py           send, fetch and garbage-collect artifacts in the store
recipe.py          recipes: check, list, copy, write, JSON Schema
compile.py         compilation for one target, with graph sizes
lint.py            what compilers and NPUs would refuse in graphs
adapter.py         inspect, convert and admit LoRA files
sensitivity.py     quantization error of each adapter, choice of the anchor
devices.py         list of devices; quarantine, release and forget phones
reserve.py         reservation of a device for a person
release.py         end of a reservation
farm.py            farm submit, fetch, status, jobs, logs, cancel
farm_pool.py       farm set-up, tokens, check, drain, systemd unit; actions that HTCondor starts
who.py             leases and reservations of devices
targets.py         compile targets, and what each lacks
doctor.py          printed checks of this machine or of one device
harness.py         build of the native program for an ABI
runtime.py         runtime kits: add, fetch, list, show, remove
completion.py      scripts by which shells complete commands and options
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

from quadbench.cli.commands import COMMANDS, OWN_EXIT_CODES, command_list

UNEXPECTED, WRONG_INPUT = 1, 2
PIPE_CLOSED = 141  # a shell's exit code for a program that ends by SIGPIPE
# Libraries read these at import and log less. A value that the user has set stays.
_QUIET_LIBRARIES = {
    "TORCH_LOGS": "-onnx",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
# All inputs of a recipe are local files, so a library that uses the network has missed one.
_OFFLINE_LIBRARIES = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")  # read by ONNX Runtime when it is loaded
_NO_PLUGINS = ("PYDANTIC_DISABLE_PLUGINS", "__all__")  # pydantic would look for some in all installed packages
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
  8    a condition of --fail-if is true
  129  SIGHUP
  130  Ctrl-C
  141  the reader of the output has exited
  143  SIGTERM
nightly only: 1 error, 2 regression, 3 inconclusive, 4 missing, 5 environment,
6 regression of an earlier night

Launches measured before a failure are stored.
`quadbench COMMAND --help` explains a command."""


def build_parser(called: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Return the argparse parser with all commands. Only commands in `called` get options, because importing commands is slow."""
    parser = _Parser(
        prog="quadbench",
        usage="quadbench [-h] [--version] COMMAND ...",
        description=f"{_PURPOSE}\n\n{command_list()}",
        epilog=_AFTERWORD,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, in a checkout also its commit, and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", prog="quadbench", help=argparse.SUPPRESS)
    for name, purpose in COMMANDS.items():
        if name in called:
            import_module(f"{__name__}.{name}").add(commands)
        else:
            commands.add_parser(name, description=purpose)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. SIGTERM and SIGHUP interrupt it like Ctrl-C."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    with _interrupting_signals() as received:
        try:
            return _main(words, received)
        except OSError:
            if signal.SIGHUP not in received:
                raise
            return _interrupt_exit_code(received)  # the terminal is gone, so the error cannot be printed


@contextmanager
def _interrupting_signals() -> Iterator[list[signal.Signals]]:
    """Collect SIGTERMs and SIGHUPs in the yielded list. Raise KeyboardInterrupt on the first. Leave ignored signals ignored."""
    received: list[signal.Signals] = []

    def interrupt(number: int, _frame: object) -> None:
        received.append(signal.Signals(number))
        if len(received) == 1:  # a closed terminal may send two; the second must not interrupt storing
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()  # only the main thread may set signals
    taken = [number for number in (signal.SIGTERM, signal.SIGHUP) if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _interrupt_exit_code(received: Sequence[signal.Signals]) -> int:
    """Return the exit code of an interrupted command: 128 plus the number of the first signal received. Ctrl-C gives 130."""
    return 128 + next(iter(received), signal.SIGINT)


def _main(words: Sequence[str], received: Sequence[signal.Signals]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    os.environ.setdefault(*_NO_PLUGINS)
    try:
        options = build_parser([command] if command else ()).parse_args(words)

        from quadbench.cli.console import CheckedStream, PipeClosedError
        from quadbench.errors import QuadbenchError
        from quadbench.results.disk import removal_errors, require_folder, storage_errors

        _configure_logging(options.verbose)
    except _UsageError as error:
        _refuse(words, str(error), UNEXPECTED if command in OWN_EXIT_CODES else WRONG_INPUT)
    except (KeyboardInterrupt, ImportError) as error:  # a command takes half a second to be imported
        if not _is_interrupt(error):
            raise
        sys.stderr.write(f"error: {_cause(received)}; nothing was started\n")
        return _interrupt_exit_code(received)
    try:
        root = options.layout.root
        require_folder(root)
        with redirect_stdout(CheckedStream(sys.stdout)) as output, removal_errors(root), storage_errors(root):
            code: int = options.run(options)
            output.flush()
    except PipeClosedError:
        return PIPE_CLOSED
    except QuadbenchError as error:
        return _fail(options, str(error), UNEXPECTED if options.command in OWN_EXIT_CODES else error.exit_code)
    except (KeyboardInterrupt, ImportError) as error:
        if not _is_interrupt(error):
            raise
        return _fail(options, f"{_cause(received)}; {_stored_run_message(options, error)}", _interrupt_exit_code(received))
    except Exception as error:
        _print_json_error(options.json, f"unexpected {type(error).__name__}: {error}", UNEXPECTED)
        raise
    return code


class _UsageError(Exception):
    """Raised for an invalid command line."""


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises errors instead of exiting. It refuses arguments that are empty strings.

    An empty shell variable must not be taken for the working folder or for an option's default.
    """

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if "" in arg_strings and action.nargs != argparse.PARSER:  # a command's own arguments, which its parser checks
            raise argparse.ArgumentError(action, "expected a value, found an empty string")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{self.format_usage()}{self.prog}: error: {message}")


def _refuse(words: Sequence[str], message: str, code: int) -> NoReturn:
    """Print `message` on stderr and exit with `code`. With `--json` or a prefix (`--js`), first print the error as JSON."""
    from quadbench.artifacts.safe_text import printable

    wants_json = any(len(word) > 2 and "--json".startswith(word) for word in words)
    _print_json_error(wants_json, message.partition("error: ")[2], code)
    sys.stderr.write(f"{printable(message)}\n")
    raise SystemExit(code)


class _Version(argparse.Action):
    """The option `--version`: the installed version and, in a checkout, its commit, looked up only when the option is given."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        from quadbench.host import checkout_commit

        commit = checkout_commit()
        sys.stdout.write(f"quadbench {version('quadbench')}{f' (commit {commit})' if commit else ''}\n")
        parser.exit()


def _is_interrupt(error: BaseException | None) -> bool:
    """Return True if `error` or a cause of `error` is KeyboardInterrupt. Ctrl-C while a C library loads can raise ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def _cause(received: Sequence[signal.Signals]) -> str:
    return f"ended by {received[0].name}" if received else "interrupted"


def _stored_run_message(options: argparse.Namespace, interrupt: BaseException) -> str:
    from quadbench.cli.options import next_command
    from quadbench.errors import FarmWaitInterrupted, RunInterrupted

    if isinstance(interrupt, FarmWaitInterrupted):
        return str(interrupt)
    if not isinstance(interrupt, RunInterrupted):
        return "finished work is kept"
    run_id = interrupt.run_id
    again, report = next_command(options, "run", "--resume", run_id), next_command(options, "report", run_id)
    return f"measured launches are stored as run {run_id}\nto resume: {again}\nto see the results so far: {report}"


def _fail(options: argparse.Namespace, message: str, code: int) -> int:
    from quadbench.cli.console import print_error

    _print_json_error(options.json, message, code)
    print_error(message)
    return code


def _print_json_error(wants_json: bool, message: str, code: int) -> None:
    from quadbench.cli.console import print_json

    if wants_json:
        print_json({"error": message, "exit_code": code})


def _configure_logging(verbosity: int) -> None:
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    from quadbench.artifacts.safe_text import printable

    class PrintableFormatter(logging.Formatter):
        """A log formatter that removes terminal control codes, because messages may contain text from a device."""

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
