"""Products: the compiled graphs of a bundle, made one after the other and kept when a later one fails."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from quadbench.artifacts import MIB, Caveat, CompileCost, Graph, Kernels
from quadbench.results.digests import digest_of
from quadbench.results.layout import folder_name
from quadbench.results.manifest import file_ref, link, temporary_folder


@dataclass(frozen=True, kw_only=True)
class Product:
    """The graphs in the order in which they were given, the versions that made them, doubts; costs and kernels by path."""

    graphs: tuple[Graph, ...]
    versions: dict[str, str] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()
    costs: dict[str, CompileCost] = field(default_factory=dict)
    kernels: dict[str, Kernels] = field(default_factory=dict)


COST = "cost.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OneByOne:
    """A compiler of single graphs, for which a large one takes gigabytes, and several an hour.

    `compile_one` writes the product of a graph, by its path in the bundle and its file, to a path, and returns the most memory
    that this took. `made_by` is what a product depends on beside its graph.
    """

    name: str
    suffix: str
    made_by: Mapping[str, object]
    compile_one: Callable[[str, Path, Path], int]

    def compile_all(self, graphs: Sequence[Graph], source: Path, folder: Path, notify: Callable[[str], None]) -> Product:
        """Compile the graphs one after the other. Each product is kept beside `folder` until all are there."""
        store = folder.parent / f".{self.name}"
        places = {g.file.path: store / folder_name(digest_of({"graph": g.file.sha256, **self.made_by})) for g in graphs}
        products, costs = [], {}
        for graph in graphs:
            name, target = graph.file.path, (folder / graph.file.path).with_suffix(self.suffix)
            notify(name)
            try:
                cost = self._take(places[name], target)
            except FileNotFoundError:
                cost = self._compile(name, source / name, places[name], target)
            log.info("compile: %s, %.1f s, %.0f MB", name, cost.seconds, cost.peak_memory_bytes / MIB)
            products.append(replace(graph, file=file_ref(folder, target)))
            costs[name] = cost
        with _gone_if_empty(store):
            for place in places.values():
                shutil.rmtree(place, ignore_errors=True)
        return Product(graphs=tuple(products), costs=costs)

    def _compile(self, name: str, source: Path, place: Path, target: Path) -> CompileCost:
        """Write the product to `target`, and keep it with its cost in a folder that is complete or absent."""
        with _gone_if_empty(place.parent), temporary_folder(place) as work:
            started = time.monotonic()
            peak = self.compile_one(name, source, work / self._product)
            cost = CompileCost(seconds=round(time.monotonic() - started, 3), peak_memory_bytes=peak)
            (work / COST).write_text(json.dumps(asdict(cost)))
            cost = self._take(work, target)
            with suppress(OSError):  # another process that compiles the same was faster
                work.rename(place)
        return cost

    def _take(self, place: Path, target: Path) -> CompileCost:
        """Link the product that was compiled into `place` to `target`, and return its cost."""
        cost = CompileCost(**json.loads((place / COST).read_text()))
        link(place / self._product, target)
        return cost

    @property
    def _product(self) -> str:
        return f"product{self.suffix}"


@contextmanager
def _gone_if_empty(folder: Path) -> Iterator[None]:
    """Remove the folder at the end, if nothing is in it then."""
    try:
        yield
    finally:
        with suppress(OSError):  # others are kept in it
            folder.rmdir()
