"""Intermediates: recipes that differ in little -> the products on the way to their bundles that they share, each made once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from PIL.Image import Image

from quadbench.quad.prepare import Prepared, prepare
from quadbench.quad.quantize.quantizer import Calibrated
from quadbench.quad.sources import bundle_digest
from quadbench.quad.steps import Steps
from quadbench.recipe import W8A16, JointCalibration, Precision, Quad, Recipe, UnifiedProfile

ProductT = TypeVar("ProductT")
_PRECISION = Precision(weights="int8", activations=W8A16(scheme="w8a16"), lora="int16")


class Intermediates:
    """The products that several builds share: never changed, only added to. Large weights lie below `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._prepared: dict[str, Prepared] = {}
        self._calibrated: dict[str, Calibrated] = {}
        self._pictures: dict[str, Mapping[str, Image]] = {}

    def prepared(self, recipe: Recipe, steps: Steps) -> Prepared:
        """Return the recipe as it is before all quantization.

        Raises:
            UserError: something that the recipe names is missing or does not fit; AdapterError where it is an adapter.
        """
        return _kept(self._prepared, _float_digest(recipe), lambda: prepare(recipe, steps, self.scratch))

    def calibrated(self, recipe: Recipe, part: str, make: Callable[[], Calibrated]) -> Calibrated:
        """Return a component's ranges, which do not follow from any number of bits."""
        return _kept(self._calibrated, f"{part} of {_range_digest(recipe)}", make)

    def pictures(self, recipe: Recipe, task: str, make: Callable[[], Mapping[str, Image]]) -> Mapping[str, Image]:
        """Return a task's reference images by item."""
        return _kept(self._pictures, f"{task} of {_float_digest(recipe)}", make)


def _kept(kept: dict[str, ProductT], key: str, make: Callable[[], ProductT]) -> ProductT:
    if key not in kept:
        kept[key] = make()
    return kept[key]


def _float_digest(recipe: Recipe) -> str:
    """Return a digest that is the same for recipes that differ only in how their models are quantized."""
    samples = recipe.quad.calibration.samples
    quad = Quad(profile=UnifiedProfile(scheme="unified"), calibration=JointCalibration(scheme="joint", samples=samples))
    return bundle_digest(recipe.model_copy(update={"precision": _PRECISION, "quad": quad, "baselines": ()}))


def _range_digest(recipe: Recipe) -> str:
    """Return a digest that is the same for recipes that differ only in their bits."""
    return bundle_digest(recipe.model_copy(update={"precision": _PRECISION, "baselines": ()}))
