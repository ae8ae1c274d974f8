"""Exports of a nightly report for CI and chats: JUnit XML, and a webhook message."""

import html
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from quadbench.artifacts.night_record import RulingKind
from quadbench.artifacts.safe_text import one_line
from quadbench.errors import ServiceError, UserError
from quadbench.report.formatting import plural
from quadbench.report.night import FigureRow, NightFinding, NightView, figure_name, subject_name, tidy
from quadbench.results.disk import write_atomic

_RESULTS: dict[RulingKind, type[Failure | Error | Skipped]] = {
    RulingKind.REGRESSION: Failure,
    RulingKind.MISSING: Error,
    RulingKind.INCONCLUSIVE: Skipped,
    RulingKind.ENVIRONMENT: Skipped,
}
WEBHOOK_VARIABLE = "QUADBENCH_WEBHOOK"
_TIMEOUT_S, _PATIENCE_S = 20.0, 60.0  # for each read of the answer, and for all of it
_MAX_ADDRESS_LENGTH = 2000
_MAX_FINDINGS, _MAX_CHARACTERS = 15, 2900  # Slack accepts 3000 characters in a block
_MENTION = re.compile(r"@(?=\w)")  # Mattermost and others notify for `@channel`; mail addresses look the same after escaping
_LINK = re.compile(r"\](?=\()")
_BREAK = "\u200b"  # zero-width space, which breaks a word invisibly
_ALL = "all figures"
Tested = tuple[str, str]  # a case and the display name of one of its figures


def night_junit(view: NightView) -> bytes:
    """Return a night as JUnit XML: regressions as failures, unmeasured cases as errors, doubtful verdicts as skipped tests. The
    type of a failure is STANDING if an earlier night told it first, else REGRESSION.
    """
    xml = JUnitXml(name=tidy(view.night.name))
    for device in view.devices:
        suite = TestSuite(name=device.address)
        suite.timestamp = view.night.began_at.strftime("%Y-%m-%dT%H:%M:%S")
        measured = [one for one in view.night.measurements if one.device == device.device]
        for one in measured:
            suite.add_property(f"{tidy(one.case)}: subject", subject_name(one.subject))
        figures = {(tidy(one.case), figure_name(point.key, point.task)) for one in measured for point in one.points}
        results: dict[Tested, tuple[NightFinding, FigureRow]] = {}  # the first, and thus worst, finding for each figure
        for finding in view.findings:
            for figure_text in finding.figures if finding.place[1] == device.device else ():
                results.setdefault((tidy(figure_text.ruling.case), figure_text.figure or _ALL), (finding, figure_text))
        for case, figure in sorted(figures | results.keys()):
            test = TestCase(name=figure, classname=case)
            if (case, device.address) in view.open:
                test.result = [Skipped("no ruling yet")]
            elif (case, figure) in results:
                test.result = [*_result(*results[case, figure])]
            suite.add_testcase(test)
        xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    text: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return text


def _result(finding: NightFinding, figure: FigureRow) -> Iterator[Failure | Error | Skipped]:
    if kind := _RESULTS.get(finding.kind):
        result = kind(f"{finding.label}: {figure.cause}", "STANDING" if finding.is_standing else finding.kind.value)
        result.text = f"{finding.sentence} Next: {finding.next_step}"
        yield result


def check_address(address: str) -> str:
    """Return the webhook address unchanged if it is a valid HTTP or HTTPS URL. Otherwise raise UserError.

    Raises:
        UserError: the address is invalid. The message omits it, since whoever knows it can write to the chat.
    """
    try:
        parts = urlsplit(address)
        is_right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and parts.username is None
        (parts.hostname or "").encode("idna")
    except ValueError:  # for unclosed brackets, an invalid port or an invalid host
        is_right = False
    is_plain = address.isascii() and address.isprintable() and " " not in address and len(address) <= _MAX_ADDRESS_LENGTH
    if not (is_right and is_plain):
        hint = f"set ${WEBHOOK_VARIABLE} or --webhook to the URL from your chat"
        raise UserError("the webhook is not a URL; expected one such as https://hooks.example.com/services/T0/B0/x", hint=hint)
    return address


def night_message(view: NightView) -> dict[str, Any]:
    """Return a webhook message about a night: Slack blocks of plain text, and `text` for clients that cannot show blocks."""
    lines = [f"{view.outcome}: night {view.night.night_id}", view.sentence]
    for finding in view.findings[:_MAX_FINDINGS]:
        owners = f" ({', '.join(finding.owners)})" if finding.owners else ""
        lines.append(f"• {finding.label}: {finding.sentence}{owners}")
    if len(view.findings) > _MAX_FINDINGS:
        lines.append(f"and {plural(len(view.findings) - _MAX_FINDINGS, 'more finding')}")
    lines += [f"• over or accepted: {sentence}" for sentence in view.ended[:_MAX_FINDINGS]]
    plain = _without_links("\n".join(lines))[:_MAX_CHARACTERS]
    return {
        "text": "\n".join(_without_links(html.escape(line, quote=False)) for line in lines)[:_MAX_CHARACTERS],
        "mrkdwn": False,
        "blocks": [{"type": "section", "text": {"type": "plain_text", "text": plain, "emoji": False}}],
    }


def send(message: dict[str, Any], address: str) -> None:
    """Post a message as JSON to a webhook address. Redirects are not followed, and errors never contain the address."""
    body = json.dumps(message).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json; charset=utf-8"}, method="POST")
    reasons = [f"no complete answer within {_PATIENCE_S:g} s"]
    # An answer could arrive byte by byte without end.
    posting = threading.Thread(target=lambda: reasons.append(_post_failure(request)), name="quadbench-webhook", daemon=True)
    posting.start()
    posting.join(_PATIENCE_S)
    if reason := reasons[-1]:
        hint = "run the same command again to post the message; the night is stored"
        raise ServiceError(f"the webhook did not accept the night's message: {reason}", hint=hint)


def _post_failure(request: urllib.request.Request) -> str:
    """Post an HTTP request; return the reason as text if it failed, or an empty string if it succeeded."""
    try:
        with urllib.request.build_opener(_NoRedirection).open(request, timeout=_TIMEOUT_S):
            return ""
    except HTTPError as error:
        error.close()
        return f"the server answered {error.code}"
    except URLError as error:
        return one_line(error.reason.strerror or "no answer") if isinstance(error.reason, OSError) else "no answer"
    except (OSError, HTTPException, ValueError) as error:
        return f"no answer ({type(error).__name__})"


def post_night(view: NightView, address: str, log_path: Path) -> bool:
    """Post a night's message to a webhook, unless `log_path` has its hash already. Save the hash. Return True if it was posted.

    Raises:
        ServiceError: the webhook did not accept the message.
        StorageError: the digest cannot be written.
    """
    message = night_message(view)
    note = json.dumps({"schema_version": 1, "sha256": sha256(json.dumps(message).encode()).hexdigest()})
    if log_path.is_file() and log_path.read_bytes().strip() == note.encode():
        return False
    send(message, address)
    write_atomic(log_path, note)
    return True


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """The `urllib` handler that refuses to follow HTTP redirects."""

    def redirect_request(self, *_: object) -> None:
        return None


def _without_links(text: str) -> str:
    return _LINK.sub(f"]{_BREAK}", _MENTION.sub(f"@{_BREAK}", text))
