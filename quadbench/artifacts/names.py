"""Text from outside: made safe to show, and checked before it becomes part of a path."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from quadbench.errors import shown

_LONGEST_NAME_BYTES = 200  # file systems take 255, and endings come behind it
_LONGEST_PATH = 1024

MOST_CHARACTERS = 1000
"""Characters of one message that are shown; a program may say megabytes."""

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # of ASCII, but for tabs and line ends
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, marks that turn the direction of writing, halves of characters, line ends


@dataclass(frozen=True)
class Checked:
    """A mark on a type: whatever reads files with pydantic then takes only values of it that pass the check.

    It is pydantic's protocol, and not its `AfterValidator`, so that the nouns do without pydantic until a file is read.
    """

    check: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Return the schema of the type, with the check behind it."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


def check_file_name(text: str) -> str:
    """Return a name of an item, a run or a folder as it is: one part of a path, which stays where it is put.

    Raises:
        ValueError: the text can leave its folder, hides a file, or is too long for a file system.
    """
    expected = None
    if not text or not text.isprintable() or re.search(r"[/\\]", text):
        expected = "printable characters without / and \\, at least one"
    elif text[0] in ".- " or text[-1] in ". ":
        expected = "no '.', '-' or space at the start, and no '.' or space at the end"
    elif len(text.encode()) > _LONGEST_NAME_BYTES:
        expected = f"at most {_LONGEST_NAME_BYTES} bytes, found {len(text.encode())}"
    if expected:
        raise ValueError(f"{shown(text)} cannot name a file; expected {expected}")
    return text


def can_name_file(name: object) -> bool:
    """Say whether what a database gives for an id is one that quadbench has given."""
    try:
        return isinstance(name, str) and bool(check_file_name(name))
    except ValueError:
        return False


def check_relative_path(text: str) -> str:
    """Return the path of a file below a folder as it is: relative, with `/`, and without steps out of the folder.

    Raises:
        ValueError: the path is absolute, climbs, has a part that is no file's name, or is too long.
    """
    if len(text) > _LONGEST_PATH:
        raise ValueError(f"{shown(text)} is no path of a file; expected at most {_LONGEST_PATH} characters, found {len(text)}")
    if text.startswith(("/", "~")) or ".." in text.split("/"):
        raise ValueError(f"{shown(text)} leads out of its folder; expected a path below it, as inputs/000.png")
    for part in text.split("/"):
        check_file_name(part)
    return text


def check_sha256(text: str) -> str:
    """Return a digest as it is; files on devices are named by it.

    Raises:
        ValueError: the text is no sha256 in hex.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{shown(text)} is no sha256; expected 64 characters of 0-9 and a-f")
    return text


def check_line(text: str) -> str:
    """Return a text as it is: one line, without characters that a terminal acts on, and not too long to read."""
    if text != one_line(text):
        raise ValueError(f"{shown(text)} is no line of text; expected at most {MOST_CHARACTERS} characters without controls")
    return text


FileName = Annotated[str, Checked(check_file_name)]
RelativePath = Annotated[str, Checked(check_relative_path)]
Sha256 = Annotated[str, Checked(check_sha256)]
Line = Annotated[str, Checked(check_line)]


def one_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return the text on one line, at most `most` characters of it; what does not fit is counted.

    Codes that only set colours are dropped; every other character that a terminal acts on instead of showing it is written out,
    as `\\x1b`.
    """
    head = text[: 4 * most]  # enough for what remains, and no more work than that
    line = " / ".join(part.strip() for part in printable(head).splitlines() if part.strip())
    left_out = len(text) - len(head) + max(0, len(line) - most)
    return f"{line[:most]}... ({left_out} more characters)" if left_out else line


def printable(text: str) -> str:
    """Return the text, line ends and tabs as they are, every other character that a terminal acts on written out."""
    plain = _COLOURS.sub("", text.replace("\r\n", "\n"))
    return plain if plain.isascii() and not _CONTROLS.search(plain) else "".join(map(_shown, plain))


def is_plain(text: str) -> bool:
    """Say whether a text may stand on a line as it is."""
    return all(unicodedata.category(character) not in _INVISIBLE for character in text)


def _shown(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _INVISIBLE:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
