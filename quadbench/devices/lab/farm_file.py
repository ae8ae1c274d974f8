"""The format of farm.yaml, which lists a lab's phones with names and labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from quadbench.devices.addresses import needs_server
from quadbench.devices.lab.selection import KEYS
from quadbench.errors import UserError
from quadbench.spec import Name, Problem, Spec, load, path_variable, refuse
from quadbench.spec.spec_model import TextPattern
from quadbench.target.profile import profile_names

FARM_VARIABLE = "QUADBENCH_FARM"
_DEFAULT = Path("farm.yaml")

_TEXT = TextPattern(pattern=r"[^\s,=*]+", expected="a word without spaces, commas, = and *")
Text = Annotated[str, Field(min_length=1, max_length=200), _TEXT]


class ExpectedPhone(Spec):
    """One phone of a lab, as farm.yaml lists it: name, adb serial and labels."""

    name: Name
    """The name by which people call the phone."""
    serial: Text
    """The phone's adb serial."""
    labels: dict[Name, Text] = Field(default_factory=dict)
    """Labels by which --devices can select it, such as `rack: left`."""

    @field_validator("labels")
    @classmethod
    def _own(cls, labels: dict[str, str]) -> dict[str, str]:
        refuse(
            [
                Problem(location=(key,), reason=f"'{key}' is known of every device; expected a label of your own")
                for key in labels
                if key in KEYS
            ]
        )
        return labels


def _means_another(phone: ExpectedPhone) -> Iterator[tuple[str, str]]:
    """Yield up to two pairs (field, value): `name` if a device profile has the same name, `serial` if reserved, like `local`."""
    if phone.name in profile_names():
        yield "name", phone.name
    if not needs_server(phone.serial):
        yield "serial", phone.serial


class FarmFile(Spec):
    """The content of farm.yaml: the phones of a lab."""

    schema_version: Literal[1]
    """The version of this format: 1."""
    devices: Annotated[tuple[ExpectedPhone, ...], Field(max_length=10_000)]
    """The phones, each once."""

    @field_validator("devices")
    @classmethod
    def _each_once(cls, devices: tuple[ExpectedPhone, ...]) -> tuple[ExpectedPhone, ...]:
        problems = [
            Problem(location=(number, key), reason=f"'{value}' is an address of its own; expected another")
            for number, device in enumerate(devices)
            for key, value in _means_another(device)
        ]
        for key in ("name", "serial"):
            values = [getattr(device, key) for device in devices]
            problems += [
                Problem(location=(number, key), reason=f"'{value}' stands twice")
                for number, value in enumerate(values)
                if value in values[:number]
            ]
        serials = {device.serial: number for number, device in enumerate(devices)}
        problems += [
            Problem(location=(number, "name"), reason=f"'{device.name}' is the serial of another phone; expected another")
            for number, device in enumerate(devices)
            if serials.get(device.name, number) != number
        ]
        refuse(problems)
        return devices


def expected_phones() -> tuple[ExpectedPhone, ...]:
    """Return the phones in the file named by $QUADBENCH_FARM. If unset, read ./farm.yaml, or return () if that is missing.

    Raises:
        SpecError: all problems of the file.
        UserError: the variable names a missing file.
    """
    named = path_variable(FARM_VARIABLE)
    if named is None and not _DEFAULT.exists():
        return ()
    path = named or _DEFAULT
    if not path.exists():
        raise UserError(f"${FARM_VARIABLE} names '{path}', which does not exist", hint="see docs/farm.md")
    return load(path, FarmFile).devices
