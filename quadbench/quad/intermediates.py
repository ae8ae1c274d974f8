"""Intermediates: recipes that differ in little -> the products on the way to their bundles that they share, each made once."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from PIL.Image import Image

from quadbench.quad.cache import RecipeDigests
from quadbench.quad.prepare import Prepared
from quadbench.quad.quantize.quantizer import Calibrated
from quadbench.recipe import Task

ProductT = TypeVar("ProductT")


class Intermediates:
    """The products that several builds share: never changed, only added to. Large weights lie below `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._prepared: dict[str, Prepared] = {}
        self._by_models: dict[str, Prepared] = {}
        self._calibrated: dict[str, Calibrated] = {}
        self._pictures: dict[str, Mapping[str, Image]] = {}

    def prepared(self, digests: RecipeDigests, make: Callable[[Prepared | None], Prepared]) -> Prepared:
        """Return the recipe as it is before all quantization; `make` is given one of the same models, where there is one."""
        like = self._by_models.get(digests.models)
        prepared = _kept(self._prepared, digests.floats, partial(make, like))
        self._by_models.setdefault(digests.models, prepared)
        return prepared

    def calibrated(self, digests: RecipeDigests, part: str, make: Callable[[], Calibrated]) -> Calibrated:
        """Return a component with what was seen of its tensors, from which ranges for any number of bits follow."""
        return _kept(self._calibrated, f"{part} of {digests.ranges}", make)

    def pictures(self, digests: RecipeDigests, task: Task, make: Callable[[], Mapping[str, Image]]) -> Mapping[str, Image]:
        """Return a task's reference images by item."""
        return _kept(self._pictures, f"{task.model_dump_json()} of {digests.models}", make)


def _kept(kept: dict[str, ProductT], key: str, make: Callable[[], ProductT]) -> ProductT:
    if key not in kept:
        kept[key] = make()
    return kept[key]
