"""The command `doctor`: check this machine or a device, and print a remedy for each problem."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from quadbench.artifacts.safe_text import one_line
from quadbench.cli.console import RunConsole, empty_table, print_answer, stdout_console
from quadbench.cli.options import Options, Subparsers, add_command
from quadbench.devices.addresses import parse_address
from quadbench.doctor.bring_up import bring_up
from quadbench.doctor.checks import BringUp, CheckStatus
from quadbench.doctor.machine import Dependency, examine
from quadbench.errors import DeviceError, MissingDependencyError, UserError

_COLOURS = {CheckStatus.OK: "green", CheckStatus.FAILED: "red", CheckStatus.NOT_TOLD: "yellow", CheckStatus.NOT_TRIED: "yellow"}

_MARK_WIDTH = len("missing")


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "doctor", run)
    parser.add_argument(
        "--device",
        metavar="ADDRESS",
        help="test this device: commands, push, harness, runtime, graphs on its CPU and NPU (s25, s25@SERIAL, virtual:s25)",
    )
    parser.add_argument("--all", action="store_true", help="list every program, package and compile target, with its version")


def run(options: Options) -> int:
    if options.device is not None:
        if "," in options.device:
            raise UserError(f"--device '{options.device}' names several devices", hint="name only one of them")
        with RunConsole() as observer:
            result = bring_up(parse_address(options.device.strip()), layout=options.layout, observer=observer)
        print_answer(options, result.model_dump(mode="json"), lambda: _print_bring_up(stdout_console(), result))
        return 0 if result.is_ok else DeviceError.exit_code
    checks = examine()
    shown = _print_checks if options.all else _print_summary
    print_answer(options, checks, lambda: shown(stdout_console(), checks))
    return 0 if all(check.is_ok for check in checks if check.is_required) else MissingDependencyError.exit_code


def _print_bring_up(console: Console, result: BringUp) -> None:
    """Print a table of all checks of a device, then hints for the checks that are not ok."""
    shown = empty_table("", "check", "result or reason", "s", whole=("", "check", "s"))
    for check in result.checks:
        mark = Text(check.status, style=_COLOURS[check.status])
        shown.add_row(mark, check.name, check.said, f"{check.seconds:.1f}")
    console.print(shown)
    for check in result.checks:
        if check.hint:
            console.print(f"{check.name}: {one_line(check.hint)}", highlight=False)


def _print_checks(console: Console, checks: Sequence[Dependency]) -> None:
    """Print every check, grouped by purpose, with a hint below each missing one."""
    for purpose, group in _grouped(checks):
        console.print(Text(one_line(purpose), style="bold"))
        for check in group:
            line = f"  {one_line(' '.join(filter(None, (check.name, check.found))))}"
            console.print(Text.assemble("  ", _mark([check]), line), highlight=False)
            if not check.is_ok and check.hint:
                console.print(Padding(Text(check.hint), (0, 0, 0, _MARK_WIDTH + 4)), highlight=False)


def _print_summary(console: Console, checks: Sequence[Dependency]) -> None:
    """Print one line for each purpose, such as virtual devices: the programs found, or the command that installs missing ones."""
    for purpose, group in _grouped(checks):
        texts = [f"{check.name} {check.found or ''}".rstrip() for check in group]
        if hints := list(dict.fromkeys(check.hint for check in group if check.hint)):
            texts = [hints[0], *(["more with --all"] if len(hints) > 1 else [])]
        text = Text.assemble(f"{one_line(purpose)}: ", (one_line(", ".join(texts)), "" if hints else "dim"))
        row = Table.grid(padding=(0, 2))
        row.add_row(Text.assemble(_mark(group)), text if hints else Text.assemble(text, no_wrap=True, overflow="ellipsis"))
        console.print(row, highlight=False)
    console.print("More: quadbench doctor --all; to test a phone: quadbench doctor --device s25", highlight=False)


def _grouped(checks: Sequence[Dependency]) -> Iterator[tuple[str, list[Dependency]]]:
    for purpose in dict.fromkeys(check.purpose for check in checks):
        yield purpose, [check for check in checks if check.purpose == purpose]


def _mark(group: Sequence[Dependency]) -> tuple[str, str]:
    """Return `ok`, `missing` if the main job needs what is lacking, or `absent`, with its colour."""
    if all(check.is_ok for check in group):
        return "ok".ljust(_MARK_WIDTH), "green"
    is_required = any(check.is_required for check in group if not check.is_ok)
    return ("missing" if is_required else "absent").ljust(_MARK_WIDTH), "red" if is_required else "yellow"
