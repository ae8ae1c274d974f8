"""pyproject.toml and what is installed -> the tables of docs/dependencies.md: each package, its licence and its weight.

    python scripts/dependencies.py

Rewrites the tables in place. The page itself says what a package is for; a new one gets a question mark, which a test refuses.
Megabytes are those of a package's own files as pip installed them, without compiled bytecode; an extra's total is of all that it
brings and the core does not.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
ROW = re.compile(r"^\| `(?P<name>[^`]+)` \| (?P<purpose>[^|]+) \|", re.MULTILINE)
TABLE = re.compile(r"(?P<title>^## `(?P<room>[\w-]+)`\n.*?)(?P<table>^\| package.*?\n)(?=\n|\Z)", re.MULTILINE | re.DOTALL)
_MOST_CHARACTERS = 60  # of a licence; some packages give the whole text


def rooms() -> dict[str, list[Requirement]]:
    """Return the packages that pyproject.toml names, for the core and for each extra; quadbench itself is none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {"core": project["dependencies"], **project["optional-dependencies"]}
    return {room: [one for line in lines if (one := Requirement(line)).name != "quadbench"] for room, lines in named.items()}


def main() -> None:
    page = PAGE.read_text()
    purposes = {row["name"]: row["purpose"] for row in ROW.finditer(page)}
    core = closure(rooms()["core"])

    def renewed(found: re.Match[str]) -> str:
        return found["title"] + "".join(f"{line}\n" for line in table(rooms()[found["room"]], purposes, core, found["room"]))

    PAGE.write_text(TABLE.sub(renewed, page))
    sys.stderr.write(f"{PAGE.relative_to(ROOT)} is renewed\n")


def table(packages: list[Requirement], purposes: dict[str, str], core: dict[str, Distribution], room: str) -> Iterator[str]:
    """Yield the lines of a room's table, with the weight of all that it brings in the last one."""
    yield "| package | what for | licence | MB |"
    yield "|---|---|---|---|"
    for package in sorted(packages, key=lambda one: one.name.lower()):
        found = installed(package.name)
        licence, size = (licence_of(found), f"{size_mb(found):.1f}") if found else ("not installed here", "")
        yield f"| `{package.name}` | {purposes.get(package.name, '?')} | {licence} | {size} |"
    brought = {name: found for name, found in closure(packages).items() if room == "core" or name not in core}
    yield f"| all it brings | {len(brought)} packages | | {sum(map(size_mb, brought.values())):.0f} |"


def installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def closure(packages: Iterable[Requirement]) -> dict[str, Distribution]:
    """Return the installed packages among `packages`, with everything that they depend on, by name."""
    brought: dict[str, Distribution] = {}
    waiting = [(package, "") for package in packages]
    while waiting:
        package, extra = waiting.pop()
        name = re.sub(r"[-_.]+", "-", package.name).lower()
        if package.marker and not package.marker.evaluate({"extra": extra}):
            continue
        if (found := installed(name)) is None:
            continue
        is_known = name in brought
        brought[name] = found
        needed = [Requirement(line) for line in found.requires or ()]
        if not is_known:
            waiting += [(one, "") for one in needed]
        waiting += [(one, word) for word in package.extras for one in needed if one.marker and "extra" in str(one.marker)]
    return brought


def size_mb(found: Distribution) -> float:
    paths = [Path(str(found.locate_file(file))) for file in found.files or () if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def licence_of(found: Distribution) -> str:
    """Return a package's licence as its metadata says it: an SPDX expression, else a classifier, else its first words."""
    facts = found.metadata
    classifiers = [line.rpartition(" :: ")[2] for line in facts.get_all("Classifier") or () if line.startswith("License ::")]
    words = facts.get("License-Expression") or " and ".join(one for one in classifiers if one != "OSI Approved")
    words = words or (facts.get("License") or "UNKNOWN").strip().splitlines()[0]
    words = words.replace("UNKNOWN", "not said")
    return words if len(words) <= _MOST_CHARACTERS else f"{words[:_MOST_CHARACTERS].rpartition(' ')[0]} …"


if __name__ == "__main__":
    main()
