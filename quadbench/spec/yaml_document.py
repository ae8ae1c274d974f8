"""Parsing of YAML files into plain data, with the line number of every value. Each problem is recorded with line and key."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from quadbench.errors import SpecError, UserError, quote, shortened_text
from quadbench.spec.files import read_file

Location: TypeAlias = tuple[str | int, ...]

MAX_SPEC_BYTES = 2**20  # the most bytes of a spec: a hundred times the longest recipe
_MAX_DIGITS = 18  # the most digits of a whole number, so that it fits into 64 bits
MAX_VALUES = 20_000  # the most keys and values of a file: twice those of a recipe with the longest trace
MAX_DEPTH = 32  # deeper than any spec, shallow enough for the recursive walks below

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() in ("yes", "true", "on"),
    "float": lambda text: float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")),
    "str": str,
    "timestamp": str,  # specs have no dates: 2026-01-01 is a name like any other
}


@dataclass(kw_only=True)
class Document:
    """A parsed YAML file: plain data, the line of every key and list entry, the overridden values, and the problems so far."""

    path: Path
    data: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    changed: dict[Location, str] = field(default_factory=dict)  # by location, each override as the user wrote it: KEY=VALUE
    problems: list[tuple[int, str, str]] = field(default_factory=list)  # line (0: of a change), key, reason

    def add(self, line: int, location: Location, reason: str) -> None:
        """Record a problem with its line number, location and reason. Line 0 means a value from a command-line override."""
        self.problems.append((line, key_of(location), reason))

    def set(self, key: str, value: Any, written: str) -> None:
        """Override the value of a key such as `tasks[0].seed`, adding missing keys. Record a problem if the key cannot be added.

        `tasks.0.seed` is the same, and so is `tasks.restyle.seed` if the list's first entry has that name. `written` is the
        user's own text of the override, which problems with the value name instead of a line.
        """
        parts = key.replace("[", ".").replace("]", "").split(".")
        here, location = self.data, Location()
        for depth, part in enumerate(parts, start=1):
            place = _place(here, part) if isinstance(here, list) else part
            if not (isinstance(here, dict) or (isinstance(place, int) and place < len(here))):
                holder = describe(here)
                if isinstance(here, list):
                    names = [str(entry["name"]) for entry in here if isinstance(entry, dict) and "name" in entry]
                    holder = f"a list of {len(here)}" + (f" ({', '.join(names)})" if names else "")
                self.add(self.line_of(location), location, f"found {holder}, which has no '{part}' as in '{key}'")
                return
            if depth == len(parts):
                here[place] = value
                self.changed[(*location, place)] = written
            elif isinstance(here, dict):
                here.setdefault(place, {})
            here, location = here[place], (*location, place)

    def place_of(self, location: Location) -> tuple[int, str]:
        """Return `(line, key)` of the value at a location. For a value set by an override, return `(0, text of the override)`."""
        changed = next((location[:end] for end in range(len(location), 0, -1) if location[:end] in self.changed), None)
        if changed is None:
            return self.line_of(location), key_of(location)
        within = "" if changed == location else f": {key_of(location)}"
        return 0, f"{self.changed[changed]}{within}"

    def line_of(self, location: Location) -> int:
        """Return the line number of the value at a location. If none is recorded, return that of the nearest enclosing value."""
        return next(self.lines[location[:end]] for end in range(len(location), -1, -1) if location[:end] in self.lines)

    def raise_problems(self) -> None:
        """Raise one SpecError with all recorded problems, sorted by line. Do nothing if there are no problems."""
        if self.problems:
            unique = dict.fromkeys(sorted(self.problems, key=lambda problem: problem[0]))
            at = ((f"{self.path}:{line}:" if line else f"{self.path} with", key, reason) for line, key, reason in unique)
            raise SpecError(f"{place} {key + ': ' if key else ''}{reason}" for place, key, reason in at)


def _place(here: list[Any], part: str) -> int | str:
    """Return the list index for `part`, a number as text or an entry's `name`. If no entry has that name, return `part`."""
    named = (index for index, entry in enumerate(here) if isinstance(entry, dict) and entry.get("name") == part)
    return int(part) if part.isdecimal() else next(named, part)


def read_document(path: Path) -> Document:
    """Read a YAML file as a Document. Repeated keys and bad scalars go to `Document.problems`. Other errors raise SpecError."""
    document = Document(path=path)
    try:
        content = read_file(path, fault=UserError, max_bytes=MAX_SPEC_BYTES)
    except UserError as error:
        raise SpecError([error.message], hint="give the path of a YAML file") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        document.add(line, (), f"not UTF-8: byte 0x{content[error.start]:02x}; save the file as UTF-8")
        document.raise_problems()
        raise
    return parse_document(text, document)


def parse_document(text: str, document: Document) -> Document:
    """Parse YAML text into the data and lines of `document`; return `document`. Raise SpecError unless the text is a mapping."""
    try:
        _check_events(text, document)
        document.raise_problems()
        root: Any = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = mark.line if mark is not None else text.count("\n", 0, getattr(error, "position", None) or 0)
        document.add(int(line) + 1, (), f"not YAML: {_error_text(error)}")
        document.raise_problems()
    if root is None or root.tag == "tag:yaml.org,2002:null":
        document.add(1, (), "the file is empty")
    elif not isinstance(root, yaml.MappingNode):
        document.add(_line(root), (), f"expected keys and values, found {describe(_plain(root, (), document))}")
    document.raise_problems()
    document.data = _plain(root, (), document)
    return document


def read_value(text: str) -> Any:
    """Parse a YAML scalar and return it as a Python value: a number, text, a bool or None.

    Raises:
        UserError: the text is not such a scalar.
    """
    document = Document(path=Path())
    try:
        node: Any = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise UserError(f"'{text}' is not a value: {_error_text(error)}") from error
    if not isinstance(node, yaml.ScalarNode):
        raise UserError(f"'{text}' is not a value; expected a number, a word, true, false or null")
    value = _scalar(node, (), document)
    for _, _, reason in document.problems:
        raise UserError(f"'{text}' is not a value: {reason}")
    return value


def key_of(location: Location) -> str:
    """Return a location as a key: ("tasks", 1, "steps") as `tasks[1].steps`. Long parts are shortened."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{shortened_text(part)}" for part in location)
    return text.removeprefix(".")


def describe(value: Any) -> str:
    """Describe a YAML value for an error message, such as `5`, `true`, `a list`, `keys and values` or `nothing`."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"text {quote(value)}"
        case dict():
            return "keys and values"
        case list():
            return "a list"
        case _:
            return f"{value}"


def _check_events(text: str, document: Document) -> None:
    """Record a problem if YAML text has aliases, deep nesting or too many values. Making nodes of it could exhaust memory."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            document.add(_line(event), (), f"alias '*{shortened_text(str(event.anchor))}' is not supported; write the value out")
        values += isinstance(event, yaml.ScalarEvent)
        if values > MAX_VALUES:
            document.add(_line(event), (), f"has more than {MAX_VALUES} keys and values; expected a hand-written file")
            return
        if depth > MAX_DEPTH:
            document.add(_line(event), (), f"nested deeper than {MAX_DEPTH} levels")
            return


def _line(marked: Any) -> int:
    """Return the line of an event or node, counted from 1."""
    return int(marked.start_mark.line) + 1


def _error_text(error: yaml.YAMLError) -> str:
    parts = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    return ", ".join(str(part) for part in parts if part) or "unreadable"


def _plain(node: Any, location: Location, document: Document) -> Any:
    """Return a YAML node as dict, list or JSON scalar, and record the line of every value in it."""
    document.lines.setdefault(location, _line(node))
    if isinstance(node, yaml.MappingNode):
        return dict(_pairs(node, location, document))
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, (*location, index), document) for index, child in enumerate(node.value)]
    return _scalar(node, location, document)


def _pairs(node: Any, location: Location, document: Document) -> Iterator[tuple[str, Any]]:
    """Yield (key, plain value) for each entry of a YAML mapping. Skip a repeated or non-scalar key, and record a problem."""
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = _line(key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            document.add(line, location, "a key must be plain text")
            continue
        key = key_node.value
        if key in seen:
            document.add(line, (*location, key), f"duplicate key, first on line {seen[key]}")
            continue
        seen[key] = document.lines[(*location, key)] = line
        yield key, _plain(value_node, (*location, key), document)


def _scalar(node: Any, location: Location, document: Document) -> Any:
    """Return a scalar's value. Record a problem for unsupported tags, and for numbers such as 010, which YAML 1.1 reads as 8."""
    tag, line, text = node.tag.removeprefix("tag:yaml.org,2002:"), _line(node), node.value
    try:
        if tag != "int":
            value = _SCALARS[tag](text)
            is_too_large = tag == "float" and math.isinf(value) and "inf" not in text.lower()
            reason = f"{quote(text)} is too large; expected a number of at most 1.8e308" if is_too_large else None
        elif re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", text):
            digits = len(text.lstrip("+-"))
            reason = f"expected a whole number of at most {_MAX_DIGITS} digits, found {digits} digits"
            value, reason = (int(text), None) if digits <= _MAX_DIGITS else (text, reason)
        else:  # YAML 1.1 would read 010 as 8 and 1:30 as 90
            value, reason = text, f"write {quote(text)[1:-1]} as a plain decimal number, or in quotes"
    except KeyError:
        value, reason = text, f"tag {quote(node.tag)} is not supported"
    except ValueError:
        value, reason = text, f"write {quote(text)[1:-1]} as a plain decimal number, or in quotes"
    if reason:
        document.add(line, location, reason)
        return text
    return value
