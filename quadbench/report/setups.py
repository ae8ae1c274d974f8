"""Setups: RunResult -> the bundles that its devices ran, and with which precision and samplers; pure."""

import re
from dataclasses import dataclass

from quadbench.artifacts import Bundle, RunResult, TaskAssets
from quadbench.artifacts.parts import lora_dtype
from quadbench.report.launches import devices_of
from quadbench.report.text_table import TextTable
from quadbench.report.units import plural


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A bundle and the addresses of the devices that ran it; `where` names them, and is empty where all devices ran it."""

    bundle: Bundle
    addresses: tuple[str, ...]
    where: str


def setups_of(result: RunResult) -> tuple[Setup, ...]:
    """Return a setup for each bundle of the run."""
    setups = []
    for stored in result.bundles:
        addresses = tuple(d.address for d in devices_of(result) if result.stored_on(d).folder == stored.folder)
        where = ", ".join(addresses) if len(result.bundles) > 1 else ""
        setups.append(Setup(bundle=stored.artifact, addresses=addresses, where=where))
    return tuple(setups)


def setup_table(setups: tuple[Setup, ...]) -> TextTable | None:
    """Return what each device ran; None where all ran the same."""
    if len(setups) < 2:
        return None
    tasks = [task.name for task in setups[0].bundle.tasks]
    return TextTable(
        title="where the recipe's `devices` tell them apart",
        columns=("Device", "Activations", "LoRA", *tasks),
        numeric=(False,) * (3 + len(tasks)),
        rows=tuple((address, *_cells(each.bundle)) for each in setups for address in each.addresses),
    )


def titled(title: str, where: str) -> str:
    """Return a title, with the devices that it is about where that are not all."""
    return f"{title}, on {where}" if where else title


def _cells(bundle: Bundle) -> tuple[str, ...]:
    return (bundle.precision, lora_dtype(bundle), *map(sampler_text, bundle.tasks))


def sampler_text(task: TaskAssets) -> str:
    """Return a task's sampler in words: `lcm, 4 steps`."""
    return f"{task.scheme}, {plural(task.steps, 'step')}"


def precision_text(bundle: Bundle) -> str:
    """Return a bundle's precision in words: `w8a16 (weights of 8 bits, activations of 16), LoRA int16`."""
    bits = re.fullmatch(r"w(\d+)a(\d+)", bundle.precision)
    meaning = f" (weights of {bits[1]} bits, activations of {bits[2]})" if bits else ""
    return f"{bundle.precision}{meaning}, LoRA {lora_dtype(bundle)}"
