"""Intermediates: recipes that differ in little -> the products on the way to their bundles that they share, made once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from PIL.Image import Image

from quadbench.quad.prepare import Prepared, prepare
from quadbench.quad.quantize.quantizer import Calibrated
from quadbench.quad.sources import bundle_digest
from quadbench.quad.steps import Steps
from quadbench.recipe import W8A16, JointCalibration, Precision, Quad, Recipe, UnifiedProfile

Made = TypeVar("Made")
_PRECISION = Precision(weights="int8", activations=W8A16(scheme="w8a16"), lora="int16")


class Intermediates:
    """Kept while several recipes are built. What is in it is never changed, only added to. Large weights lie below `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._prepared: dict[str, Prepared] = {}
        self._calibrated: dict[str, Calibrated] = {}
        self._pictures: dict[str, Mapping[str, Image]] = {}

    def prepared(self, recipe: Recipe, steps: Steps) -> Prepared:
        """What precedes all quantization. Raises: as `prepare`."""
        return _kept(self._prepared, _float_digest(recipe), lambda: prepare(recipe, steps, self.scratch))

    def calibrated(self, recipe: Recipe, part: str, make: Callable[[], Calibrated]) -> Calibrated:
        """A component's ranges, which do not follow from any number of bits."""
        return _kept(self._calibrated, f"{part} of {_range_digest(recipe)}", make)

    def pictures(self, recipe: Recipe, task: str, make: Callable[[], Mapping[str, Image]]) -> Mapping[str, Image]:
        """A task's reference images by item."""
        return _kept(self._pictures, f"{task} of {_float_digest(recipe)}", make)


def _kept(kept: dict[str, Made], key: str, make: Callable[[], Made]) -> Made:
    if key not in kept:
        kept[key] = make()
    return kept[key]


def _float_digest(recipe: Recipe) -> str:
    """The same for recipes that differ only in how their models are quantized."""
    samples = recipe.quad.calibration.samples
    quad = Quad(profile=UnifiedProfile(scheme="unified"), calibration=JointCalibration(scheme="joint", samples=samples))
    return bundle_digest(recipe.model_copy(update={"precision": _PRECISION, "quad": quad, "baselines": ()}))


def _range_digest(recipe: Recipe) -> str:
    """The same for recipes that differ only in their bits."""
    return bundle_digest(recipe.model_copy(update={"precision": _PRECISION, "baselines": ()}))
