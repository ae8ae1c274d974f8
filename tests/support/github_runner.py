"""GitHub runner: the output of a step -> the workflow commands that GitHub's runner takes from it.

The rules are those of `ActionCommand` in actions/runner: a line that begins with `::NAME` and has another `::` is one; so is a
line with `##[NAME]` anywhere; between `::stop-commands::TOKEN` and `::TOKEN::` there are none.
"""

import re
from collections.abc import Iterator

_NEW = re.compile(r"\s*::([a-z-]+)(?: ([^\n]*?))?::(.*)", re.IGNORECASE)
_OLD = re.compile(r"##\[([a-z-]+)[^\]]*\](.*)", re.IGNORECASE)
_DECODED = (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%"))


def commands(output: str) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the properties and the message of each command, decoded."""
    token = None
    for line in output.splitlines():
        if token is not None:
            token = None if line.strip() == f"::{token}::" else token
        elif match := _NEW.match(line) or _OLD.search(line):
            name, *more = match.groups()
            if name == "stop-commands":
                token = more[-1]
            else:
                yield name, _decoded(more[0] or "") if len(more) > 1 else "", _decoded(more[-1])


def _decoded(text: str) -> str:
    for code, character in _DECODED:
        text = text.replace(code, character)
    return text
