"""Webhook: a night as it is told, and an address -> one message to a chat, as Slack and what is compatible with it take it."""

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

from quadbench.artifacts.device_text import one_line
from quadbench.errors import ServiceError, UserError
from quadbench.report.night import NightView
from quadbench.report.units import plural
from quadbench.results.storage import write_whole

WEBHOOK_VARIABLE = "QUADBENCH_WEBHOOK"
_TIMEOUT_S, _PATIENCE_S = 20.0, 60.0  # for a step of the answer, and for all of it
_LONGEST_ADDRESS = 2000
_MOST_FINDINGS, _MOST_CHARACTERS = 15, 2900  # Slack takes 3000 in a block
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # all that Slack has to be told; in angle brackets stand links and mentions
_MENTION = re.compile(r"@(?=\w)")  # Mattermost and others take `@channel` for one; an address of mail looks as it did
_LINK = re.compile(r"\](?=\()")
_BREAK = "\u200b"  # of no width: what stands on either side of it is not one word


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
    lines = list(_lines(view))
    return {
        "text": "\n".join(map(_escaped, lines))[:_MOST_CHARACTERS],
        "mrkdwn": False,
        "blocks": [{"type": "section", "text": {"type": "plain_text", "text": _plain(lines), "emoji": False}}],
    }


def send(message: dict[str, Any], address: str) -> None:
    """Post a message. Redirections are not followed: only who was named is told.

    Raises:
        ServiceError: it was not taken; the message does not have the address.
    """
    body = json.dumps(message).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json; charset=utf-8"}, method="POST")
    reasons = [f"no whole answer in {_PATIENCE_S:g} s"]

    def post() -> None:
        reasons.append(_posted(request))

    posting = threading.Thread(target=post, name="quadbench-webhook", daemon=True)  # an answer may come byte by byte, for ever
    posting.start()
    posting.join(_PATIENCE_S)
    if reason := reasons[-1]:
        raise ServiceError(
            f"the webhook was not told of the night: {reason}", hint="the night is stored; the same command tells it again"
        )


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


def _lines(view: NightView) -> Iterator[str]:
    yield f"{view.outcome}: night {view.night.night_id}"
    yield view.sentence
    for finding in view.findings[:_MOST_FINDINGS]:
        owners = f" ({', '.join(finding.owners)})" if finding.owners else ""
        yield f"• {finding.kind}: {finding.sentence}{owners}"
    if len(view.findings) > _MOST_FINDINGS:
        yield f"and {plural(len(view.findings) - _MOST_FINDINGS, 'more finding')}"


def _plain(lines: list[str]) -> str:
    return _unlinked("\n".join(lines))[:_MOST_CHARACTERS]


def _escaped(line: str) -> str:
    return _unlinked("".join(_ENTITIES.get(character, character) for character in line))


def _unlinked(text: str) -> str:
    return _LINK.sub(f"]{_BREAK}", _MENTION.sub(f"@{_BREAK}", text))
