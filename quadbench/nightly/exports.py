"""A night for CI and chats: GitHub annotations, Markdown, JUnit XML, and a message to a webhook."""

import html
import json
import re
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from quadbench.artifacts.names import one_line
from quadbench.artifacts.night_record import RulingKind
from quadbench.errors import ServiceError, UserError
from quadbench.report.formatting import plural
from quadbench.report.night import Figured, NightFinding, NightView, figure_name, subject_name, words
from quadbench.report.night_formats import DEVICE_COLUMNS, device_cells, figure_lines
from quadbench.results.disk import write_whole

_LEVELS = {
    RulingKind.REGRESSION: "error",
    RulingKind.MISSING: "error",
    RulingKind.INCONCLUSIVE: "warning",
    RulingKind.ENVIRONMENT: "warning",
    RulingKind.IMPROVEMENT: "notice",
}
_MOST_OF_A_LEVEL = 10  # GitHub shows no more of a step
_IN_MESSAGE = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})  # as actions/toolkit writes them
_IN_PROPERTY = _IN_MESSAGE | str.maketrans({":": "%3A", ",": "%2C"})
# What begins or ends something within a line of Markdown, its tables or HTML, and what GitHub makes links and emoji of.
_SPECIAL = re.compile(r"[\\`*_\[\]#|<>~&@$^]|:(?=\S)|(?<=[wW])\.")
_MOST_ROWS = 200  # GitHub takes 1 MiB a step
WEBHOOK_VARIABLE = "QUADBENCH_WEBHOOK"
_TIMEOUT_S, _PATIENCE_S = 20.0, 60.0  # for a step of the answer, and for all of it
_LONGEST_ADDRESS = 2000
_MOST_FINDINGS, _MOST_CHARACTERS = 15, 2900  # Slack takes 3000 in a block
_MENTION = re.compile(r"@(?=\w)")  # Mattermost and others take `@channel` for one; an address of mail looks as it did
_LINK = re.compile(r"\](?=\()")
_BREAK = "\u200b"  # of no width: what stands on either side of it is not one word
_ALL = "all figures"
Tested = tuple[str, str]  # a case, and the name of one of its figures


def annotations(view: NightView) -> str:
    """Return the commands, a line each, that a step of a workflow writes to its output: the worst first, 10 of each level."""
    lines, levels = "", list[str]()
    for finding in view.findings:
        level = _LEVELS[finding.kind]
        levels.append(level)
        if levels.count(level) <= _MOST_OF_A_LEVEL:
            title = f"{finding.kind}: {', '.join(finding.cases)} on {finding.address}"
            owners = f" Owner: {', '.join(finding.owners)}." if finding.owners else ""
            message = f"{finding.sentence}{owners} Next: {finding.next_step}"
            lines += f"::{level} title={title.translate(_IN_PROPERTY)}::{message.translate(_IN_MESSAGE)}\n"
    return lines


def night_markdown(view: NightView) -> str:
    """Return the page: the sentence first, then what is not clean, then the devices."""
    return "\n".join(_markdown_lines(view)) + "\n"


def escaped(text: str) -> str:
    """Return a text as Markdown shows it within a line, character by character: what could be markup is written as a number."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", text)


def _markdown_lines(view: NightView) -> Iterator[str]:
    yield f"# Night {escaped(view.night.night_id)}"
    yield ""
    yield f"**{view.outcome}** {escaped(view.sentence)}"
    yield ""
    if view.findings:
        yield from _header("Ruling", "Case and device", "Change", "Why", "Next", "Since", "Owner")
        for finding in view.findings[:_MOST_ROWS]:
            where = f"{', '.join(finding.cases)} on {finding.address}"
            since = str(finding.since) if finding.since else "–"
            cause = list(filter(None, (finding.figures[0].cause, finding.doubt)))
            yield _row(finding.kind, where, figure_lines(finding), cause, finding.next_step, since, finding.owners)
        if len(view.findings) > _MOST_ROWS:
            yield f"\nand {len(view.findings) - _MOST_ROWS} more"
        yield ""
    yield from _header(*DEVICE_COLUMNS)
    for device in view.devices[:_MOST_ROWS]:
        yield _row(*device_cells(device))
    yield ""
    for case, addresses in view.clean.items():
        yield f"- {escaped(case)} is clean on {plural(len(addresses), 'device')}"


def _header(*names: str) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"


def _row(*cells: str | Sequence[str]) -> str:
    texts = ([cell] if isinstance(cell, str) else cell for cell in cells)
    return f"| {' | '.join('<br>'.join(map(escaped, lines)) or '–' for lines in texts)} |"


def night_junit(view: NightView) -> bytes:
    """Return the file. A regression fails, what is missing is an error; what cannot be told or is a device's doing is skipped."""
    xml = JUnitXml(name=words(view.night.name))
    for device in view.devices:
        suite = TestSuite(name=device.address)
        suite.timestamp = view.night.began_at.strftime("%Y-%m-%dT%H:%M:%S")
        measured = [one for one in view.night.measurements if one.device == device.device]
        for one in measured:
            suite.add_property(f"{words(one.case)}: subject", subject_name(one.subject))
        figures = {(words(one.case), figure_name(point.key, point.task)) for one in measured for point in one.points}
        results: dict[Tested, tuple[NightFinding, Figured]] = {}  # what is not clean; of several the worst, which comes first
        for finding in view.findings:
            for told in finding.figures if finding.place[1] == device.device else ():
                results.setdefault((words(told.ruling.case), told.figure or _ALL), (finding, told))
        for case, figure in sorted(figures | results.keys()):
            test = TestCase(name=figure, classname=case)
            if (case, device.address) in view.open:
                test.result = [Skipped("not ruled yet")]
            elif (case, figure) in results:
                test.result = [*_result(*results[case, figure])]
            suite.add_testcase(test)
        xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    text: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return text


def _result(finding: NightFinding, told: Figured) -> Iterator[Failure | Error | Skipped]:
    message = f"{finding.kind}: {told.cause}"
    match finding.kind:
        case RulingKind.REGRESSION:
            result: Failure | Error | Skipped = Failure(message, finding.kind.value)
        case RulingKind.MISSING:
            result = Error(message, finding.kind.value)
        case RulingKind.INCONCLUSIVE | RulingKind.ENVIRONMENT:
            result = Skipped(message, finding.kind.value)
        case RulingKind.IMPROVEMENT | RulingKind.CLEAN:
            return
    result.text = f"{finding.sentence} Next: {finding.next_step}"
    yield result


def check_address(address: str) -> str:
    """Return the address of a webhook as it is.

    Raises:
        UserError: it is none. The message does not have it: who knows it can write to the chat.
    """
    try:
        parts = urlsplit(address)
        is_right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and parts.username is None
        (parts.hostname or "").encode("idna")
    except ValueError:  # of brackets that are not closed, of a port that is none, and of a host that cannot be
        is_right = False
    is_plain = address.isascii() and address.isprintable() and " " not in address and len(address) <= _LONGEST_ADDRESS
    if not (is_right and is_plain):
        hint = f"${WEBHOOK_VARIABLE} or --webhook takes what the chat gave you"
        raise UserError("the webhook is no web address; expected one as https://hooks.example.com/services/T0/B0/x", hint=hint)
    return address


def night_message(view: NightView) -> dict[str, Any]:
    """Return the message: plain text in blocks, which is never markup, and as `text` for what shows no blocks."""
    lines = [f"{view.outcome}: night {view.night.night_id}", view.sentence]
    for finding in view.findings[:_MOST_FINDINGS]:
        owners = f" ({', '.join(finding.owners)})" if finding.owners else ""
        lines.append(f"• {finding.kind}: {finding.sentence}{owners}")
    if len(view.findings) > _MOST_FINDINGS:
        lines.append(f"and {plural(len(view.findings) - _MOST_FINDINGS, 'more finding')}")
    plain = _unlinked("\n".join(lines))[:_MOST_CHARACTERS]
    return {
        "text": "\n".join(_unlinked(html.escape(line, quote=False)) for line in lines)[:_MOST_CHARACTERS],
        "mrkdwn": False,
        "blocks": [{"type": "section", "text": {"type": "plain_text", "text": plain, "emoji": False}}],
    }


def send(message: dict[str, Any], address: str) -> None:
    """Post a message; no error has the address. Redirections are not followed: only who was named is told."""
    body = json.dumps(message).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json; charset=utf-8"}, method="POST")
    reasons = [f"no whole answer in {_PATIENCE_S:g} s"]
    # An answer may come byte by byte, for ever.
    posting = threading.Thread(target=lambda: reasons.append(_posted(request)), name="quadbench-webhook", daemon=True)
    posting.start()
    posting.join(_PATIENCE_S)
    if reason := reasons[-1]:
        hint = "the night is stored; the same command tells it again"
        raise ServiceError(f"the webhook was not told of the night: {reason}", hint=hint)


def _posted(request: urllib.request.Request) -> str:
    """Post, and return why it was not taken; nothing where it was."""
    try:
        with urllib.request.build_opener(_NoRedirection).open(request, timeout=_TIMEOUT_S):
            return ""
    except HTTPError as error:
        return f"it answered {error.code}"
    except URLError as error:
        return one_line(error.reason.strerror or "no answer") if isinstance(error.reason, OSError) else "no answer"
    except (OSError, HTTPException, ValueError) as error:
        return f"no answer ({type(error).__name__})"


def tell(view: NightView, address: str, told: Path) -> bool:
    """Post the message of a night unless it is the one that was posted last, as the file `told` has it. False if it was not.

    Raises:
        ServiceError, StorageError: it was not taken, or that it was cannot be noted.
    """
    message = night_message(view)
    note = json.dumps({"schema_version": 1, "sha256": sha256(json.dumps(message).encode()).hexdigest()})
    if told.is_file() and told.read_bytes().strip() == note.encode():
        return False
    send(message, address)
    write_whole(told, note)
    return True


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """The handler that leaves an answer as it is which names another address."""

    def redirect_request(self, *_: object) -> None:
        return None


def _unlinked(text: str) -> str:
    return _LINK.sub(f"]{_BREAK}", _MENTION.sub(f"@{_BREAK}", text))
