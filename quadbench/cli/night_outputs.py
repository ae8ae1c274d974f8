"""Night outputs: a night -> its report and JSON in the results folder, stdout, and what CI and chats were asked to be told."""

import argparse
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from quadbench.cli.console import print_error, print_text, stdout_console
from quadbench.cli.options import duration_word, next_command, output_file
from quadbench.cli.text_tables import print_text_table
from quadbench.errors import QuadbenchError, UserError
from quadbench.nightly.exports import WEBHOOK_VARIABLE, annotations, check_address, night_junit, night_markdown, tell
from quadbench.nightly.night_report import Performed
from quadbench.report.night import NightView
from quadbench.report.night_formats import device_table, finding_lines, night_json, write_night_report
from quadbench.results.engine import source_name
from quadbench.results.layout import Layout
from quadbench.results.storage import write_whole
from quadbench.spec.variables import path_variable, secret_variable

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add the options that say who else is told of a night. What is wrong with them is said before anything is measured."""
    parser.add_argument("--junit", type=output_file, metavar="FILE", help="write JUnit XML there: a suite for each device")
    parser.add_argument("--markdown", type=output_file, metavar="FILE", help="write a page in Markdown there")
    parser.add_argument(
        "--github", action="store_true", help=f"print GitHub's annotations, and add the page to ${SUMMARY_VARIABLE}"
    )
    parser.add_argument(
        "--webhook",
        type=_address,
        default=secret_variable(WEBHOOK_VARIABLE),  # argparse checks it as if it were given
        metavar="URL",
        help=f"send one message a night there, as Slack takes it (default: ${WEBHOOK_VARIABLE}, which other users cannot see)",
    )


def is_webhook_given(options: argparse.Namespace) -> bool:
    """Say whether the command line names a webhook, as the variable does for all nights."""
    given: str | None = options.webhook
    return given != secret_variable(WEBHOOK_VARIABLE)


def write_outputs(options: argparse.Namespace, performed: Performed, layout: Layout) -> bool:
    """Tell of a night: report and JSON in its folder, stdout, and whoever the options name. False if something was not told.

    What fails is said on stderr and costs nothing else.
    """
    view = performed.view(layout.words)
    folder = layout.night(view.night.night_id)
    writers: list[Callable[[], object]] = [
        lambda: write_night_report(view, _commands(options, performed), layout),
        lambda: write_whole(folder / "night.json", night_json(view)),
    ]
    if options.junit:
        writers.append(lambda: write_whole(options.junit, night_junit(view).decode()))
    if options.markdown:
        writers.append(lambda: write_whole(options.markdown, night_markdown(view)))
    if options.github:
        writers.append(lambda: _add_summary(view))
    is_told = [_done(write) for write in writers]
    _print(options, view, folder / "night.html")
    if options.webhook:  # last, as the answer may be long in coming
        is_told.append(_done(lambda: tell(view, options.webhook, folder / "webhook.json")))
    return all(is_told)


def night_command(options: argparse.Namespace, *words: str) -> str:
    """Return the command that performs the file of a night again where it was, as a shell takes it.

    The password of the farm's database is left out.
    """
    farm = ("--farm", source_name(options.farm)) if options.farm else ()
    budget = ("--budget", duration_word(options.budget)) if options.budget else ()
    return next_command(options, "nightly", *options.words, *words, *farm, *budget)


def _commands(options: argparse.Namespace, performed: Performed) -> dict[str, str]:
    """Return the commands of a night by purpose. Performed again under its own name, an ended one is only told of."""
    word = performed.night.night_id.removeprefix(f"{performed.night.name}-")
    return {
        "The same again": night_command(options),
        "As data": night_command(options, "--night", word, "--json"),
    }


def _done(write: Callable[[], object]) -> bool:
    try:
        write()
    except (QuadbenchError, OSError, ValueError) as error:  # ValueError: text that cannot be encoded or read
        print_error(str(error))
        return False
    return True


def _add_summary(view: NightView) -> None:
    """Add the page to the summary of a step, to which its other commands may have added theirs."""
    path = path_variable(SUMMARY_VARIABLE)
    if path is None:
        raise UserError(f"${SUMMARY_VARIABLE} is not set, so that no summary was written", hint="GitHub sets it in a step")
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(night_markdown(view))
    except OSError as error:
        raise UserError(f"${SUMMARY_VARIABLE}: '{path}' cannot be written: {error.strerror}") from error


def _print(options: argparse.Namespace, view: NightView, report: Path) -> None:
    if options.json:
        print_text(night_json(view))
        return
    with _unheard_by_github() if options.github else nullcontext():
        console = stdout_console()
        print_text_table(console, device_table(view))
        for finding in reversed(view.findings):  # the worst is nearest to the sentence
            print_text("\n".join(finding_lines(finding)))
        print_text(f"Report: {report}")
        console.print(view.sentence, style="bold", highlight=False)
    if options.github and view.findings:
        print_text(annotations(view))


@contextmanager
def _unheard_by_github() -> Iterator[None]:
    """Have GitHub take no line in between for a command, whatever a device has said: the token ends it, and nobody knows it."""
    token = secrets.token_hex(16)
    print_text(f"::stop-commands::{token}")
    try:
        yield
    finally:
        print_text(f"::{token}::")


def _address(text: str) -> str:
    try:
        return check_address(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(error.message) from error
