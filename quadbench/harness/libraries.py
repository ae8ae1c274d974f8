"""Libraries: those that were pushed, and those that the loader took on the device -> which one is the wrong one. Pure.

Systems have libraries of the same names, older ones among them: a graph that runs with those is not what a record is about.
"""

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quadbench.artifacts.kit import Role, role_of
from quadbench.harness.events import LibraryEvent


@dataclass(frozen=True, kw_only=True)
class PlacedLibrary:
    """A library that a device has for the harness. The loader may give any of the `paths`, of which links lead to the others.

    `build_id` is what its file says on this machine; None where it says none.
    """

    name: str
    paths: tuple[str, ...]
    build_id: str | None


@dataclass(frozen=True, kw_only=True)
class ExpectedLibraries:
    """The libraries that were `placed`, and the paths of those that a plan has the harness open."""

    placed: tuple[PlacedLibrary, ...]
    opened: tuple[str, ...]

    def wrong_one(self, loaded: Iterable[LibraryEvent]) -> str | None:
        """Say which library was loaded in place of one that was pushed; None where none was."""
        return next(filter(None, map(self._fault, loaded)), None)

    def missing_one(self, loaded: Iterable[LibraryEvent]) -> str | None:
        """Say which library was never loaded, though the plan has it opened; None where all were."""
        there = {posixpath.normpath(library.path) for library in loaded}
        for path in self.opened:
            library = self._at(path)
            if there.isdisjoint(library.paths if library else (path,)):
                return f"harness never loaded '{path}', which the plan names"
        return None

    def name_of(self, loaded: LibraryEvent) -> str:
        """Return what a library is known by, whatever the file is called in which it lies."""
        library = self._at(posixpath.normpath(loaded.path))
        return library.name if library else posixpath.basename(loaded.path)

    def _fault(self, loaded: LibraryEvent) -> str | None:
        path, is_build = posixpath.normpath(loaded.path), f"'{loaded.path}' (build id {loaded.build_id or 'none'})"
        if library := self._at(path):
            if library.build_id in (None, loaded.build_id):
                return None
            return f"harness loaded {is_build}; the '{library.name}' that was pushed there has build id {library.build_id}"
        name = posixpath.basename(path)
        pushed = next((library for library in self.placed if library.name == name), None)
        if pushed:
            return f"harness loaded {is_build} in place of '{pushed.paths[0]}' (build id {pushed.build_id or 'none'})"
        if role_of(name) is Role.SUPPORT or path in self.opened:
            return None
        return f"harness loaded {is_build}, a {role_of(name)} that was not pushed; the plan has {_quoted(self.opened)} opened"

    def _at(self, path: str) -> PlacedLibrary | None:
        return next((library for library in self.placed if path in library.paths), None)


def expected_libraries(plan: Mapping[str, Any], placed: Iterable[PlacedLibrary]) -> ExpectedLibraries:
    """Return what must be loaded of the libraries that were placed, as a plan of `harness_plan` has it."""
    provider = plan["runtime"].get("execution_provider", {})
    runtime = (plan["runtime"]["library"], plan["runtime"].get("dispatch"))
    opened = (*runtime, provider.get("library"), provider.get("options", {}).get("backend_path"))
    return ExpectedLibraries(placed=tuple(placed), opened=tuple(filter(None, opened)))


def _quoted(paths: Iterable[str]) -> str:
    return ", ".join(f"'{path}'" for path in paths)
