"""Device text: what a device or a program on it says -> text that may stand on a terminal, in a record or in a page. Pure."""

import re
import unicodedata

MOST_CHARACTERS = 1000
"""Characters of one message that are shown; a program may say megabytes."""

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # of ASCII, but for tabs and line ends
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, marks that turn the direction of writing, halves of characters, line ends


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
