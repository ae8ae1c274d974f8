"""Markdown: a night as it is told -> a page for GitHub's summary of a step, a wiki or a mail; no text in it is markup."""

import re
from collections.abc import Iterator, Sequence

from quadbench.report.night import NightView
from quadbench.report.night_formats import change_lines, figure_lines, rate_words
from quadbench.report.units import plural

# What begins or ends something within a line of Markdown, its tables or HTML, and what GitHub makes links and emoji of.
_SPECIAL = re.compile(r"[\\`*_\[\]#|<>~&@$^]|:(?=\S)|(?<=[wW])\.")
_MOST_ROWS = 200  # GitHub takes 1 MiB a step


def night_markdown(view: NightView) -> str:
    """Return the page: the sentence first, then what is not clean, then the devices."""
    return "\n".join(_lines(view)) + "\n"


def escaped(text: str) -> str:
    """Return a text as Markdown shows it within a line, character by character: what could be markup is written as a number."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", text)


def _lines(view: NightView) -> Iterator[str]:
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
    yield from _header("Device", "Clean", "Noticed", "Changed since the night before", "False alarms")
    for device in view.devices[:_MOST_ROWS]:
        wrong = [*device.wrong, *(caveat.words for caveat in device.caveats)]
        changes = list(change_lines(device.environment))
        yield _row(device.address, f"{device.clean} of {device.cases}", wrong, changes, rate_words(device))
    yield ""
    for case, addresses in view.clean.items():
        yield f"- {escaped(case)} is clean on {plural(len(addresses), 'device')}"


def _header(*names: str) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"


def _row(*cells: str | Sequence[str]) -> str:
    texts = ([cell] if isinstance(cell, str) else cell for cell in cells)
    return f"| {' | '.join('<br>'.join(map(escaped, lines)) or '–' for lines in texts)} |"
