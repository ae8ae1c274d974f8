"""Values: a tree of plain data -> the same with one value wrong, and bytes -> the same with some changed."""

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Place = tuple[str | int, ...]
LONG = "x" * 70_000
DEEP: Any = "a"
for _ in range(60):
    DEEP = [DEEP]
# None of these is right anywhere that a number, a text, a list or a mapping is expected.
_NEVER: tuple[Any, ...] = ([[[]]], {"a": {"b": 1}}, LONG, "\0", "\x1b[31m[/red]", DEEP)
OF_NUMBERS: tuple[Any, ...] = ("12", "", -(10**17), 1e300, 10**17, None, float("nan"), float("inf"), *_NEVER)
OF_TEXTS: tuple[Any, ...] = (12, True, None, -0.5, "", "../../outside/x", "a/../../../outside/y", *_NEVER)
OF_TRUTHS: tuple[Any, ...] = ("maybe", 3, *_NEVER)


def leaves(tree: Any, at: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield every value that is neither a list nor a mapping, with its place."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*at, key))
    else:
        yield at, tree


def keys(tree: Any, at: Place = ()) -> Iterator[Place]:
    """Yield the place of every key of a mapping."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if isinstance(tree, dict):
                yield (*at, key)
            yield from keys(value, (*at, key))


def with_value(tree: Any, place: Place, value: Any) -> Any:
    """Return a copy with another value at a place."""
    copied = copy.deepcopy(tree)
    here = copied
    for part in place[:-1]:
        here = here[part]
    here[place[-1]] = value
    return copied


def without(tree: Any, place: Place) -> Any:
    """Return a copy without a key."""
    copied = copy.deepcopy(tree)
    here = copied
    for part in place[:-1]:
        here = here[part]
    del here[place[-1]]
    return copied


def wrong_values(tree: Any, dice: random.Random, count: int) -> Iterator[tuple[Place, Any, Any]]:
    """Yield places, values that are wrong there, and the trees that have them."""
    places = list(leaves(tree))
    for _ in range(count):
        place, value = dice.choice(places)
        of_kind = OF_TRUTHS if isinstance(value, bool) else OF_NUMBERS if isinstance(value, int | float) else OF_TEXTS
        wrong = dice.choice(of_kind)
        yield place, wrong, with_value(tree, place, wrong)


def changed(content: bytes, dice: random.Random) -> bytes:
    """Return bytes of which one to three are others, some are missing, or some are there twice."""
    where = dice.randrange(max(1, len(content)))
    match dice.randrange(4):
        case 0:
            return content[:where]
        case 1:
            return content[:where] + content[where + dice.randrange(1, 64) :]
        case 2:
            return content[:where] + content[: dice.randrange(1, 64)] + content[where:]
    data = bytearray(content)
    for _ in range(dice.randrange(1, 4)):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def named(place: Place) -> str:
    """Return a place as a name of a case."""
    return ".".join(map(str, place))


def brief(value: Any) -> str:
    """Return a value as a name of a case."""
    return repr(value)[:40]


def write_sparse(path: Path, head: bytes = b"", size_bytes: int = 10**12) -> None:
    """Write a file that has so many zeros after its head and takes no room on the disk."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size_bytes)
