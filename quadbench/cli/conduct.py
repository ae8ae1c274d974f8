"""Conduct: `--retries`, `--budget` and `--keep-going` on the command line -> how a run bears what befalls its devices."""

import argparse

from quadbench.cli.options import duration_s
from quadbench.errors import shown
from quadbench.pipeline import USUAL, Conduct

_MOST_RETRIES = 100


def add_conduct(parser: argparse.ArgumentParser, *, later: str = "--resume goes on") -> None:
    """Add the options that `conduct_of` takes. `later` says what becomes of what did not fit into the budget."""
    parser.add_argument(
        "--retries",
        type=_retries,
        default=USUAL.retries,
        metavar="N",
        help=f"how often a lost device is waited for, up to {USUAL.wait_s / 60:g} minutes each time (default: %(default)s)",
    )
    parser.add_argument(
        "--budget", type=duration_s, metavar="TIME", help=f"begin nothing that would not end within this, as 2h; {later}"
    )
    parser.add_argument(
        "--keep-going", action="store_true", help="leave out what cannot be had at the beginning, and name it at the end"
    )


def conduct_of(options: argparse.Namespace) -> Conduct:
    """Return what the options say."""
    return Conduct(retries=options.retries, budget_s=options.budget, keep_going=options.keep_going)


def _retries(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text[:9]) > _MOST_RETRIES:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no number of retries; expected 0 to {_MOST_RETRIES}")
    return int(text)
