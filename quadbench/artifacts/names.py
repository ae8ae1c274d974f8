"""Names: text from a file of somebody's -> a name that may become part of a path, or the reason why it may not."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from quadbench.artifacts.device_text import MOST_CHARACTERS, one_line
from quadbench.errors import shown

_LONGEST_NAME_BYTES = 200  # file systems take 255, and endings come behind it
_LONGEST_PATH = 1024


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
    """Return a text as it is: one line, without characters that a terminal acts on, and not too long to read.

    Raises:
        ValueError: the text is more than such a line.
    """
    if text != one_line(text):
        raise ValueError(f"{shown(text)} is no line of text; expected at most {MOST_CHARACTERS} characters without controls")
    return text


FileName = Annotated[str, Checked(check_file_name)]
RelativePath = Annotated[str, Checked(check_relative_path)]
Sha256 = Annotated[str, Checked(check_sha256)]
Line = Annotated[str, Checked(check_line)]
