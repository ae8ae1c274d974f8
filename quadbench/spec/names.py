"""Names: text from a file of somebody's -> a name that may become part of a path, or the reason why it may not."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

NAME_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"
NAME_EXPECTED = "lower-case letters and digits in groups joined by single hyphens"
LONGEST_NAME = 64
_LONGEST_FILE_NAME_BYTES = 200  # file systems take 255, and endings come behind it
_LONGEST_PATH = 1024
_SHOWN = 40


def is_name(text: str) -> bool:
    """Say whether a task, an adapter or a recipe may be called so."""
    return len(text) <= LONGEST_NAME and re.fullmatch(NAME_PATTERN, text) is not None


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
    elif len(text.encode()) > _LONGEST_FILE_NAME_BYTES:
        expected = f"at most {_LONGEST_FILE_NAME_BYTES} bytes, found {len(text.encode())}"
    if expected:
        raise ValueError(f"{shown(text)} cannot name a file; expected {expected}")
    return text


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


def shown(text: str) -> str:
    """Return a text as messages name it: escaped, quoted, and not longer than a few words."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=LONGEST_NAME)]
FileName = Annotated[str, AfterValidator(check_file_name)]
RelativePath = Annotated[str, AfterValidator(check_relative_path)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # a file's name on a device
