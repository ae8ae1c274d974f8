"""Measured nights: a results folder, a case and words for devices -> the nights of the case on each of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quadbench.artifacts.night import Measurement
from quadbench.cli.addresses import listed_devices
from quadbench.errors import UnknownNameError, UserError
from quadbench.results.engine import database_of, open_engine, open_for_reading
from quadbench.results.layout import Layout
from quadbench.results.nights import Nights


@contextmanager
def nights_of(layout: Layout, *, is_written: bool = False) -> Iterator[Nights]:
    """Open the nights of a results folder, to read them or to add to them.

    Raises:
        UserError: nothing was measured there yet.
    """
    source = database_of(layout)
    if isinstance(source, Path) and not source.exists():
        raise UserError(f"'{layout.root}' has no nights", hint="quadbench nightly night.yaml performs one")
    engine = open_engine(source) if is_written else open_for_reading(source)
    try:
        yield Nights(engine)
    finally:
        engine.dispose()


def measured_on(nights: Nights, case: str, words: str | None) -> dict[str, list[Measurement]]:
    """Return by device the nights of a case: on the devices that `--devices` names as they are leased or were called, or on all.

    Raises:
        UnknownNameError: no night has the case, or it was not measured on a device.
        UserError: `--devices` names nothing.
    """
    known = {name for name, _ in nights.cases()}
    series = nights.series(case) if case in known else []
    if not series:
        raise UnknownNameError("case", case, known - {case})
    by_name: dict[str, str] = {}
    for night in series:
        by_name |= {night.device: night.device, night.address: night.device}
    wanted = listed_devices(words) or list(by_name)
    for word in wanted:
        if word not in by_name:
            raise UnknownNameError("device", word, {night.address for night in series})
    devices = dict.fromkeys(by_name[word] for word in wanted)
    return {device: [night for night in series if night.device == device] for device in devices}
