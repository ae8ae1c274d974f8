"""Jinja environment for HTML pages without scripts. It escapes all text and shows invisible characters as escape codes."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from quadbench.artifacts.safe_text import printable
from quadbench.report.formatting import decibels, number, percent, pieces, plural, rough_times, seconds, show, times

_HERE = Path(__file__).parent
_WRITERS = (show, times, rough_times, decibels, seconds, number, percent, plural)  # filters by their own names

_COMMANDS = re.compile(r"(?<=: )quadbench .+$|quadbench [a-z]+(?: --[a-z-]+ [A-Z]+)*|--[a-z-]+ [A-Z]+")  # in a sentence


@cache
def page_environment(*folders: Path, **filters: Callable[..., Any]) -> Environment:
    """Return a Jinja environment with `filters` and the style sheet as `css`. Templates in `folders` override built-in ones."""
    environment = Environment(
        loader=FileSystemLoader([*folders, _HERE / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        # Text may come from a device; a page has no invisible characters.
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        **{write.__name__: write for write in _WRITERS},
        "utc": lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "command": _command,
        "with_commands": _with_commands,
        "with_figures": _with_figures,
        **filters,
    }
    environment.globals["css"] = Markup((_HERE / "style.css").read_text("utf-8"))
    return environment


def _with_commands(sentence: str) -> Markup:
    """Format a sentence as HTML, with quadbench commands as code. A command after a colon extends to the end of the sentence."""
    end, parts = 0, []
    for match in _COMMANDS.finditer(sentence):
        parts += [escape(sentence[end : match.start()]), _command(match[0])]
        end = match.end()
    return Markup("").join((*parts, escape(sentence[end:])))


def _with_figures(sentence: str) -> Markup:
    """Format a sentence as HTML. Values between the marker characters U+E000 and U+E001 become bold."""
    tags = ("{}", "<b>{}</b>")
    return Markup("").join(Markup(tags[n % 2]).format(printable(piece)) for n, piece in enumerate(pieces(sentence)))


def _command(text: str) -> Markup:
    """Format a command as HTML code that breaks between words, and within a word only if it must."""
    words = (Markup("<span>{}</span>").format(printable(word)) for word in text.split(" "))
    return Markup('<code class="long">{}</code>').format(Markup(" ").join(words))
