"""The command `compare`: run two recipes or two bundles alternately on devices, and print which takes more time or memory."""

import argparse
import re
from collections.abc import Sequence

from quadbench.cli.console import RunConsole, print_error
from quadbench.cli.device_options import add_devices, addresses_of
from quadbench.cli.options import Options, Subparsers, add_command
from quadbench.cli.result import print_study
from quadbench.errors import DeviceError, HarnessError, UserError
from quadbench.report.html import write_study_report
from quadbench.report.run_line import write_comparison
from quadbench.study.run_comparison import CompareOptions, compare, compare_stored, side_of

_LEAST, _MOST = 0.002, 1.0  # allowed effect sizes of --to-see, as shares


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "compare", run)
    parser.add_argument("a", metavar="A", help="a recipe, the folder of a bundle, or the id of a run")
    parser.add_argument("b", metavar="B", nargs="?", help="the other recipe, bundle or run (default: A)")
    for side in ("a", "b"):
        parser.add_argument(
            f"--{side}",
            action="append",
            default=[],
            dest=f"changes_of_{side}",
            metavar="KEY=VALUE",
            help=f"change {side.upper()}: a recipe's key such as runtime.threads=1, or variant, harness (file), kit (digest)",
        )
    parser.add_argument(
        "--to-see",
        type=_effect,
        metavar="PERCENT",
        help="run enough launches to detect an effect of this size, such as 3%% (default: evaluate after 6, 10 and 16 blocks)",
    )
    add_devices(parser)


def run(options: Options) -> int:
    sources = (options.a, options.b or options.a)
    changes = [_changes(words) for words in (options.changes_of_a, options.changes_of_b)]
    a, b = (side_of(source, changed, options.layout) for source, changed in zip(sources, changes, strict=True))
    if options.b is None and changes[0] == changes[1]:
        hint = "change one side, for example --b runtime.threads=1, or name B; to compare A with itself, name it twice"
        raise UserError(f"'{options.a}' would be compared with itself", hint=hint)
    if a.run and b.run and not options.devices:
        if options.to_see:
            raise UserError("--to-see plans launches, but two stored runs need none", hint="name devices to measure them again")
        compared = compare_stored(a, b)
        write_comparison(compared, options.layout)
    else:
        chosen = addresses_of(options.devices, options.layout)
        with RunConsole() as observer:
            compared = compare(a, b, chosen, CompareOptions(to_see=options.to_see), layout=options.layout, observer=observer)
    write_study_report(compared, options.layout)
    print_study(options, compared)
    for address, failure in compared.failures.items():
        print_error(f"{address} was left out: {failure}")
    if compared.failures:
        return DeviceError.exit_code
    return HarnessError.exit_code if any(device.broken for device in compared.devices) else 0


def _changes(words: Sequence[str]) -> dict[str, str]:
    pairs = [word.partition("=")[::2] for word in words]
    for word, (key, value) in zip(words, pairs, strict=True):
        if not key.strip() or not value.strip():
            raise UserError(f"'{word}' is not a change; expected KEY=VALUE", hint="for example: --b runtime.threads=1")
    keys = [key.strip() for key, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise UserError(f"{twice} is changed more than once on one side")
    return {key.strip(): value.strip() for key, value in pairs}


def _effect(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,4})?) ?%?", text.strip())
    share = float(match[1]) / 100 if match else 0.0
    if not _LEAST <= share <= _MOST:
        raise argparse.ArgumentTypeError(f"'{text}' is not an effect size; expected {_LEAST:.1%} to {_MOST:.0%}")
    return share
