"""Intermediates: recipes that differ in little -> the products on the way to their bundles that they share, each made once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from PIL.Image import Image

from quadbench.quad.cache import RecipeDigests
from quadbench.quad.prepare import Prepared
from quadbench.quad.quantize.quantizer import Calibrated

ProductT = TypeVar("ProductT")


class Intermediates:
    """The products that several builds share: never changed, only added to. Large weights lie below `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._prepared: dict[str, Prepared] = {}
        self._calibrated: dict[str, Calibrated] = {}
        self._pictures: dict[str, Mapping[str, Image]] = {}

    def prepared(self, digests: RecipeDigests, make: Callable[[], Prepared]) -> Prepared:
        """Return the recipe as it is before all quantization."""
        return _kept(self._prepared, digests.floats, make)

    def calibrated(self, digests: RecipeDigests, part: str, make: Callable[[], Calibrated]) -> Calibrated:
        """Return a component with what was seen of its tensors, from which ranges for any number of bits follow."""
        return _kept(self._calibrated, f"{part} of {digests.ranges}", make)

    def pictures(self, digests: RecipeDigests, task: str, make: Callable[[], Mapping[str, Image]]) -> Mapping[str, Image]:
        """Return a task's reference images by item."""
        return _kept(self._pictures, f"{task} of {digests.floats}", make)


def _kept(kept: dict[str, ProductT], key: str, make: Callable[[], ProductT]) -> ProductT:
    if key not in kept:
        kept[key] = make()
    return kept[key]
