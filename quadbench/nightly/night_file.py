"""Night file: night.yaml -> the cases of a night, each with its devices, its yardstick, its owner and its limits."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from quadbench.artifacts.names import is_plain
from quadbench.errors import shown
from quadbench.spec import Name, Problem, Spec, refuse

_MOST_CASES, _MOST_DEVICES = 256, 1000
PictureMetric = Literal["ssim", "st_lpips", "kid"]  # those that need no network but what the extra `quality` brings
Change = Annotated[float, Field(gt=0.0, le=1.0)]


def _on_one_line(text: str) -> str:
    if not is_plain(text) or text != text.strip():
        raise ValueError(f"expected text on one line without spaces around it, found {shown(text)}")
    return text


Word = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_on_one_line)]


class Limits(Spec):
    """The changes of a figure that matter: smaller ones are nobody's concern."""

    time: Change = 0.03
    """Of times, as a share of what is usual: 0.03 is 3 %. The default is 0.03."""
    session_load: Change | None = None
    """Of the time that sessions take to load, as a share. The default is null: that of times."""
    switch: Change | None = None
    """Of the time that a switch to another task takes, as a share. The default is null: that of times."""
    ram: Change = 0.05
    """Of the peak of memory, as a share. The default is 0.05."""
    rom: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Of bytes of files on the device, as a share. The default is 0: one byte more counts."""
    psnr_db: Annotated[float, Field(ge=0.0, le=60.0)] = 0.5
    """Of the likeness of pictures to the float reference, in decibels. The default is 0.5."""
    quality: Change = 0.05
    """Of the scores of pictures that `quality` asks for, as a share. The default is 0.05."""


class Case(Spec):
    """Something that is measured every night: a recipe or a bundle on some devices."""

    name: Name
    """The name in histories, which stays when what it runs changes: lower-case letters and digits in groups joined by hyphens."""
    source: Word
    """What runs: a recipe's name or file, or the folder of a bundle. A relative path starts at the folder of this file."""
    changes: dict[Word, Word] = Field(default_factory=dict, max_length=64)
    """Changes to it by key, as `compare --b` takes them: a recipe's key, or variant, harness or kit. The default is none."""
    yardstick: Name | None = None
    """The name of the frozen bundle whose launches alternate with the case's. The default is null: the file's."""
    devices: Annotated[tuple[Word, ...], Field(min_length=1, max_length=_MOST_DEVICES)] | None = None
    """The devices it runs on, as `--devices` takes them. The default is null: the file's."""
    owner: Word | None = None
    """Who is told. The default is null: nobody in particular."""
    quality: tuple[PictureMetric, ...] | None = None
    """The metrics by which its pictures are scored. The default is null: the file's."""
    limits: Limits | None = None
    """The changes that matter. The default is null: the file's."""


class NightFile(Spec):
    """The cases that a team wants to know about every morning."""

    schema_version: Literal[1]
    """The number of the file's format: 1."""
    name: Name
    """The name of these nights, in their ids and reports: lower-case letters and digits in groups joined by hyphens."""
    devices: Annotated[tuple[Word, ...], Field(min_length=1, max_length=_MOST_DEVICES)]
    """The devices, as `--devices` takes them: a phone's name or serial, virtual:NAME, local."""
    yardstick: Name
    """The name of a frozen bundle (`quadbench nightly freeze NAME SOURCE`), which runs beside every case: the ratio to it is what
    is followed, and where it changes, that is the device's doing."""
    cases: Annotated[tuple[Case, ...], Field(min_length=1, max_length=_MOST_CASES)]
    """The cases, each with a name of its own."""
    blocks: int = Field(default=3, ge=2, le=16)
    """The number of blocks of a night, 2 to 16, each with two launches of the case and two of the yardstick. The default is 3."""
    budget_h: float | None = Field(default=None, gt=0.0, le=24.0)
    """The hours, up to 24, after which nothing new is begun; what was not measured is MISSING. The default is null: no limit."""
    quality: tuple[PictureMetric, ...] = ()
    """The metrics of `quadbench quality` by which pictures are scored beside PSNR: ssim, st_lpips, kid. The default is none."""
    limits: Limits = Limits()
    """The changes that matter. The default is every default of its fields."""

    @field_validator("cases")
    @classmethod
    def _each_once(cls, cases: tuple[Case, ...]) -> tuple[Case, ...]:
        names = [case.name for case in cases]
        refuse(
            Problem(location=(number, "name"), reason=f"case '{name}' stands twice")
            for number, name in enumerate(names)
            if name in names[:number]
        )
        return cases

    def devices_of(self, case: Case) -> tuple[str, ...]:
        return self.devices if case.devices is None else case.devices

    def limits_of(self, case: Case) -> Limits:
        return case.limits or self.limits

    def quality_of(self, case: Case) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.quality if case.quality is None else case.quality))

    def yardstick_of(self, case: Case) -> str:
        return case.yardstick or self.yardstick
