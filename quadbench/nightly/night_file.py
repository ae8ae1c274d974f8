"""Model of night.yaml: the cases of a nightly run, each with its devices, reference bundle, owner and limits."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from quadbench.artifacts.safe_text import is_plain
from quadbench.errors import quote
from quadbench.spec import Name, Problem, Spec, refuse

_MAX_CASES, _MAX_DEVICES = 256, 1000
PictureMetric = Literal["ssim", "st_lpips", "kid"]  # metrics whose networks come with the extra `quality`
Change = Annotated[float, Field(gt=0.0, le=1.0)]


def _on_one_line(text: str) -> str:
    if not is_plain(text) or text != text.strip():
        raise ValueError(f"expected text on one line without spaces around it, found {quote(text)}")
    return text


Word = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_on_one_line)]


class Limits(Spec):
    """The smallest changes of metrics that a nightly run reports; smaller ones are ignored."""

    time: Change = 0.03
    """The limit for times, relative to the usual value: 0.03 is 3 %. The default is 0.03."""
    session_load: Change | None = None
    """The relative limit for session load times. The default is null: the limit for times."""
    switch: Change | None = None
    """The relative limit for task switch times. The default is null: the limit for times."""
    ram: Change = 0.05
    """The relative limit for peak memory. The default is 0.05."""
    rom: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """The relative limit for file sizes on the device. The default is 0: one byte more counts."""
    psnr_db: Annotated[float, Field(ge=0.0, le=60.0)] = 0.5
    """The limit for the PSNR of images against the float reference, in decibels. The default is 0.5."""
    quality: Change = 0.05
    """The relative limit for image scores listed under `quality`. The default is 0.05."""


class Case(Spec):
    """A recipe or bundle that is measured every night on some devices."""

    name: Name
    """The permanent name of the case in histories: lower-case letters and digits in groups joined by hyphens."""
    source: Word
    """The recipe's name or file, or the folder of a bundle. A relative path starts at the folder of this file."""
    changes: dict[Word, Word] = Field(default_factory=dict, max_length=64)
    """Changes to the source by key, as in `compare --b`: a recipe's key, or variant, harness or kit. The default is none."""
    yardstick: Name | None = None
    """The name of the frozen reference bundle, whose launches alternate with the case's. The default is null: the file's."""
    devices: Annotated[tuple[Word, ...], Field(min_length=1, max_length=_MAX_DEVICES)] | None = None
    """The devices of the case, in the syntax of `--devices`. The default is null: the file's."""
    owner: Word | None = None
    """The person to inform about findings. The default is null: nobody in particular."""
    quality: tuple[PictureMetric, ...] | None = None
    """The metrics that score the case's images. The default is null: the file's."""
    limits: Limits | None = None
    """The limits of changes that matter. The default is null: the file's."""


class NightFile(Spec):
    """The file night.yaml: the recipes and bundles (cases) that a team measures every night, with devices and limits."""

    schema_version: Literal[1]
    """The version of the file format: 1."""
    name: Name
    """The name of these nightly runs in ids and reports: lower-case letters and digits in groups joined by hyphens."""
    devices: Annotated[tuple[Word, ...], Field(min_length=1, max_length=_MAX_DEVICES)]
    """The devices, in the syntax of `--devices`: a phone's name or serial, virtual:NAME, local."""
    yardstick: Name
    """The name of a frozen reference bundle (`quadbench nightly freeze NAME SOURCE`). Its launches alternate with
    those of every case, and figures are tracked as ratios to its own. If its own figures change, the device is the cause."""
    cases: Annotated[tuple[Case, ...], Field(min_length=1, max_length=_MAX_CASES)]
    """The cases, each with a name of its own."""
    blocks: int = Field(default=3, ge=2, le=16)
    """The number of blocks per night, 2 to 16: two launches of the case and two of the yardstick each. The default is 3."""
    budget_h: float | None = Field(default=None, gt=0.0, le=24.0)
    """The hours, up to 24, after which no launch starts; unmeasured cases are MISSING. The default is null: no limit."""
    quality: tuple[PictureMetric, ...] = ()
    """The metrics of `quadbench quality` for images, beside PSNR: ssim, st_lpips, kid. The default is none."""
    limits: Limits = Limits()
    """The limits of changes that matter. The default is the default of every field."""

    @field_validator("cases")
    @classmethod
    def _each_once(cls, cases: tuple[Case, ...]) -> tuple[Case, ...]:
        names = [case.name for case in cases]
        refuse(
            Problem(location=(number, "name"), reason=f"case '{name}' appears twice")
            for number, name in enumerate(names)
            if name in names[:number]
        )
        return cases

    def devices_of(self, case: Case) -> tuple[str, ...]:
        return self.devices if case.devices is None else case.devices

    def quality_of(self, case: Case) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.quality if case.quality is None else case.quality))
