"""Doctor: this machine -> what is installed of all that the commands need, and what to install."""

from collections.abc import Iterator
from dataclasses import dataclass

from quadbench.compile.availability import package_version
from quadbench.devices.host import find_program
from quadbench.devices.sandbox import PACKAGES as SANDBOX_PROGRAMS
from quadbench.harness import BUILD_PROGRAMS

_BUILD_PACKAGES = ("torch", "diffusers", "transformers", "peft", "onnx", "onnxscript")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked for. `is_required` by the main job: quadbench run on virtual devices."""

    name: str
    is_ok: bool
    is_required: bool
    found: str | None
    purpose: str
    hint: str | None


def examine() -> list[Check]:
    """Everything, in the order in which a run would need it."""
    return [*_packages(), *_programs()]


def _packages() -> Iterator[Check]:
    for name in _BUILD_PACKAGES:
        found = package_version(name)
        yield Check(
            name=name,
            is_ok=found is not None,
            is_required=True,
            found=found,
            purpose="building bundles",
            hint=None if found else "pip install 'quadbench[quad]'",
        )


def _programs() -> Iterator[Check]:
    groups = (("virtual devices", SANDBOX_PROGRAMS), ("building the harness", BUILD_PROGRAMS))
    for purpose, programs in groups:
        for program, package in programs.items():
            place = find_program(program)
            found, hint = (str(place), None) if place else (None, f"apt-get install {package}")
            yield Check(name=program, is_ok=place is not None, is_required=True, found=found, purpose=purpose, hint=hint)
