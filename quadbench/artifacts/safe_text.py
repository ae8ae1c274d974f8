"""Checks and escaping for untrusted text, before the text is shown or used in a file path."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from quadbench.errors import quote

_MAX_NAME_BYTES = 200  # file systems allow 255; suffixes are appended
_MAX_PATH_LENGTH = 1024

MAX_CHARACTERS = 1000
"""The most characters of a message that are shown; a program may print megabytes."""

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # ASCII control characters except tabs and line ends
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, format marks such as writing direction, surrogates, line ends


@dataclass(frozen=True)
class ValidatedBy:
    """Metadata for `Annotated` types: pydantic passes a validated value to `check`, which returns the value or raises ValueError.

    It implements pydantic's protocol instead of using `AfterValidator`, so that artifacts do not import pydantic.
    """

    check: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Return pydantic's core schema of the annotated type. After pydantic's own validation, the schema calls `self.check`."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


def check_file_name(text: str) -> str:
    """Return the text if it is a safe name for a file or folder, without slashes or a leading dot. Raise ValueError otherwise."""
    expected = None
    if not text or not text.isprintable() or re.search(r"[/\\]", text):
        expected = "printable characters without / and \\, at least one"
    elif text[0] in ".- " or text[-1] in ". ":
        expected = "no '.', '-' or space at the start, and no '.' or space at the end"
    elif len(text.encode()) > _MAX_NAME_BYTES:
        expected = f"at most {_MAX_NAME_BYTES} bytes, found {len(text.encode())}"
    if expected:
        raise ValueError(f"{quote(text)} cannot name a file; expected {expected}")
    return text


def can_name_file(name: object) -> bool:
    """Return True if a value of any type is a string that is safe as a file name, False otherwise."""
    try:
        return isinstance(name, str) and bool(check_file_name(name))
    except ValueError:
        return False


def check_relative_path(text: str) -> str:
    """Return the path if it is relative, uses `/`, has no `..` and is not too long. Raise ValueError otherwise."""
    if len(text) > _MAX_PATH_LENGTH:
        raise ValueError(f"{quote(text)} is not a file path; expected at most {_MAX_PATH_LENGTH} characters, found {len(text)}")
    if text.startswith(("/", "~")) or ".." in text.split("/"):
        raise ValueError(f"{quote(text)} leads out of its folder; expected a path below it, such as inputs/000.png")
    for part in text.split("/"):
        check_file_name(part)
    return text


def check_sha256(text: str) -> str:
    """Return the text if it is a SHA-256 digest: 64 lower-case hex digits. Raise ValueError otherwise."""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{quote(text)} is not a SHA-256 digest; expected 64 characters of 0-9 and a-f")
    return text


def check_line(text: str) -> str:
    """Return the text if it is one line of limited length without control characters. Raise ValueError otherwise."""
    if text != one_line(text):
        raise ValueError(f"{quote(text)} is not a line of text; expected at most {MAX_CHARACTERS} printable characters")
    return text


FileName = Annotated[str, ValidatedBy(check_file_name)]
RelativePath = Annotated[str, ValidatedBy(check_relative_path)]
Sha256 = Annotated[str, ValidatedBy(check_sha256)]
Line = Annotated[str, ValidatedBy(check_line)]


def one_line(text: str, most: int = MAX_CHARACTERS) -> str:
    """Return the text's lines joined by ` / `. Cut the result after `most` characters, and append how many were left out.

    Colour codes are dropped; other control characters are written as escapes, such as `\\x1b`.
    """
    head = text[: 4 * most]  # enough for what remains, and no more work than that
    line = " / ".join(part.strip() for part in printable(head).splitlines() if part.strip())
    left_out = len(text) - len(head) + max(0, len(line) - most)
    return f"{line[:most]}... ({left_out} more characters)" if left_out else line


def printable(text: str) -> str:
    """Return the text with control characters escaped and terminal colour codes removed. Keep line ends and tabs."""
    plain = _COLOURS.sub("", text.replace("\r\n", "\n"))
    return plain if plain.isascii() and not _CONTROLS.search(plain) else "".join(map(_escaped, plain))


def is_plain(text: str) -> bool:
    """Return whether a text can be printed unchanged on one line."""
    return all(unicodedata.category(character) not in _INVISIBLE for character in text)


def _escaped(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _INVISIBLE:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
