"""Site patterns: a key of PEFT's rank_pattern or alpha_pattern -> the sites that it means, in bounded time.

PEFT takes a key as a regular expression and matches it with `(.*\\.)?(KEY)$`. An expression can take forever, so that
only what names sites is read: letters, digits, `_`, `-`, `.`, `\\.`, `\\d`, `^`, `$`, `|`, groups of alternatives, and one `.*`
beside one that it begins with. Such a key is a few branches of two parts with a fixed length, a head and a tail, which are
compared where they must stand.
"""

import math
import re
from dataclasses import dataclass
from itertools import product

LONGEST = 256  # characters of a key; the longest site of Stable Diffusion has 63
MOST_BRANCHES = 16
EXPECTED = (
    f"a site's name, its end, or at most {MOST_BRANCHES} alternatives of these, with .* at the beginning and once more at most"
)
_PIECE = r"(?:\.\*|\\[.d]|[A-Za-z0-9_.\-])"
_GROUP = rf"\({_PIECE}+(?:\|{_PIECE}+)*\)"
_BRANCH = rf"\^?(?:{_PIECE}|{_GROUP})+\$?"
_KEY = re.compile(rf"{_BRANCH}(?:\|{_BRANCH})*")


@dataclass(frozen=True, kw_only=True)
class _Branch:
    """One alternative of a key, without groups: the site ends with `tail`, and begins with `head` if there is one."""

    head: re.Pattern[str] | None
    tail: re.Pattern[str]
    tail_length: int
    anywhere: bool  # without a head: the tail need not follow a dot

    def matches(self, site: str) -> bool:
        """Say whether the branch means the site."""
        start = len(site) - self.tail_length
        if start < 0 or not self.tail.match(site, start):
            return False
        if self.head is None:
            return self.anywhere or start == 0 or site[start - 1] == "."
        return self.head.match(site, 0, start) is not None


class SitePattern:
    """A key of rank_pattern or alpha_pattern, ready to be compared with sites."""

    def __init__(self, key: str) -> None:
        """Take a key apart.

        Raises:
            ValueError: it has more than what names sites.
        """
        if len(key) > LONGEST or not _KEY.fullmatch(key):
            raise ValueError(f"expected {EXPECTED}")
        branches = [flat for branch in _split(key) for flat in _without_groups(branch)]
        if len(branches) > MOST_BRANCHES or any(
            branch.removeprefix("^").removeprefix(".*").count(".*") > 1 for branch in branches
        ):
            raise ValueError(f"expected {EXPECTED}")
        self._branches = [_branch(branch) for branch in branches]

    @property
    def branches(self) -> int:
        """The alternatives that the key is written out to."""
        return len(self._branches)

    @property
    def stars(self) -> int:
        """The alternatives whose beginning is looked for."""
        return sum(branch.head is not None for branch in self._branches)

    def matches(self, site: str) -> bool:
        """Say whether PEFT would find the key in this site's name."""
        return any(branch.matches(site) for branch in self._branches)


def _split(key: str) -> list[str]:
    """Split at the bars outside of groups."""
    return re.findall(r"(?:\([^)]*\)|[^|(])+", key)


def _without_groups(branch: str) -> list[str]:
    """Write a branch out, once for each choice of alternatives."""
    choices = [part[1:-1].split("|") if part.startswith("(") else [part] for part in re.findall(r"\([^)]*\)|[^(]+", branch)]
    if math.prod(map(len, choices)) > MOST_BRANCHES:
        raise ValueError(f"expected {EXPECTED}")
    return ["".join(parts) for parts in product(*choices)]


def _branch(text: str) -> _Branch:
    is_anchored, text = text.startswith("^"), text.removeprefix("^").removesuffix("$")
    floats, text = text.startswith(".*"), text.removeprefix(".*")
    head, star, tail = text.rpartition(".*")
    before = None
    if star:
        before = re.compile((".*" if floats else "" if is_anchored else r"(?:.*\.)?") + head)
    elif is_anchored and not floats:
        before = re.compile(r"\Z")  # nothing stands before the tail
    return _Branch(head=before, tail=re.compile(tail), tail_length=len(re.findall(_PIECE, tail)), anywhere=floats)
