"""Headline: a run's figures -> its result in sentences over all devices, gains and losses alike; pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import mean
from typing import TypeAlias

from quadbench.artifacts import Caveat, DeviceFacts
from quadbench.report.kpi import Figure, KpiRow
from quadbench.report.pictures import Quality
from quadbench.report.storage import EXTRAPOLATE_TO, Storage, UseCases
from quadbench.report.unequal import unequal_rows
from quadbench.report.units import Unit, convert, decibels, number, plural


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A piece of the headline; figures are set apart."""

    text: str
    is_figure: bool = False


Sentence: TypeAlias = tuple[Phrase, ...]
_WORTH_A_PLACE = 0.05  # between the least change and the most
_MOST_NAMED = 3  # devices; of more their number is told
_NOUNS = {
    "bytes": ("fewer bytes", "more bytes"),
    "switch": ("less time to switch tasks", "more time to switch tasks"),
    "end_to_end": ("less time for an image", "more time for an image"),
    "peak_ram": ("less memory", "more memory"),
}


def headline(storages: Sequence[Storage], rows: Sequence[KpiRow], quality: Sequence[Quality]) -> tuple[Sentence, ...]:
    """Return the sentences for all devices that have figures; none if no device has any.

    The first says what one base gains and what it costs; then come the figures of bytes, switches, images and pictures.
    """
    measured = [row for row in rows if isinstance(row.shared, Figure) or isinstance(row.per_graph, Figure)]
    devices = tuple(dict.fromkeys(row.device for row in measured))
    told = (
        _balance(storages, measured, devices),
        _bytes(storages),
        _switch(storages, measured, devices),
        _image(measured, devices),
        _pictures(quality, devices),
    )
    first, *others = [sentence for sentence in told if sentence] or [[]]
    if not first:
        return ()
    return tuple((*sentence, Phrase(text=".")) for sentence in (_on(devices, first), *map(_opened, others)))


def in_words(sentences: Sequence[Sentence]) -> str:
    """Return the sentences as text."""
    return " ".join("".join(phrase.text for phrase in sentence) for sentence in sentences)


def _on(devices: Sequence[DeviceFacts], sentence: Sequence[Phrase]) -> list[Phrase]:
    both = "both devices, " if len(devices) == 2 else ""
    return [Phrase(text=f"On {both}{_named(devices)}{',' if both else ''} "), *sentence]


def _named(devices: Sequence[DeviceFacts]) -> str:
    if len(devices) > _MOST_NAMED:
        return f"{len(devices)} devices"
    return _listed([device.address for device in devices])


def _listed(words: Sequence[str]) -> str:
    return " and ".join(", ".join(part) for part in (words[:-1], words[-1:]) if part)


def _opened(sentence: Sequence[Phrase]) -> list[Phrase]:
    """Begin a sentence with a capital letter."""
    first, *rest = sentence
    return [replace(first, text=first.text[:1].upper() + first.text[1:]), *rest]


def _balance(storages: Sequence[Storage], rows: Sequence[KpiRow], devices: Sequence[DeviceFacts]) -> list[Phrase]:
    """Say what one base takes less of on every device, what more, and what more on some of them alone."""
    apart = {key: _apart(_compared(rows, key)) for key in _NOUNS}
    changes = {
        key: [change for _, change in told] if {row.device for row, _ in told} == set(devices) else []
        for key, told in apart.items()
    }
    for end in map(_end, _with_base(storages)):
        if end.shared_bytes and end.per_graph_bytes:
            changes["bytes"].append(end.shared_bytes / end.per_graph_bytes - 1)
    gains = [less for key, (less, _) in _NOUNS.items() if changes[key] and max(changes[key]) < 0]
    losses = [more for key, (_, more) in _NOUNS.items() if changes[key] and min(changes[key]) > 0]
    if not gains and not losses:
        return []
    places = {more: _worse(apart[key]) for key, (_, more) in _NOUNS.items() if more not in losses}
    somewhere = [f"{more} on {_named(worse)}" for more, worse in places.items() if worse]
    costs = ", and ".join(_listed(part) for part in (losses if gains else (), somewhere) if part)
    but = f", but {costs}" if costs else ""
    return [Phrase(text=f"one base with LoRAs takes {_listed(gains or losses)} than one graph per task{but}")]


def _worse(told: Sequence[tuple[KpiRow, float]]) -> list[DeviceFacts]:
    """Return the devices on which a figure that not all of them tell is more."""
    return list(dict.fromkeys(row.device for row, change in told if change > 0))


def _with_base(storages: Sequence[Storage]) -> list[Storage]:
    """Return those that know the bytes of all tasks on one base."""
    return [storage for storage in storages if storage.measured and _end(storage).shared_bytes is not None]


def _end(storage: Storage) -> UseCases:
    return storage.measured[-1]


def _bytes(storages: Sequence[Storage]) -> list[Phrase]:
    with_base = _with_base(storages)
    ends = [_end(storage) for storage in with_base]
    if not ends:
        return []
    shared = [end.shared_bytes for end in ends if end.shared_bytes is not None]
    own = [end.per_graph_bytes for end in ends if end.per_graph_bytes]
    told = [Phrase(text=f"the files of {plural(ends[0].count, 'task')} take "), _range(shared, Unit.MEGABYTES)]
    if len(own) < len(ends):
        return [*told, Phrase(text=" as one base with LoRAs")]
    changes = [one / other - 1 for one, other in zip(shared, own, strict=True)]
    told += [Phrase(text=" instead of "), _range(own, Unit.MEGABYTES), Phrase(text=" ("), *_change(changes)]
    return [*told, Phrase(text=f"{_from(max(map(_break_even, with_base)), ends[0].count)})")]


def _break_even(storage: Storage) -> float:
    """Return from how many tasks on one base takes fewer bytes; infinity where no number that is known does."""
    steps = [(step.count, step.shared_bytes, step.per_graph_bytes) for step in (*storage.measured, *storage.extrapolated)]
    return next((count for count, shared, own in steps if shared is not None and own is not None and shared < own), inf)


def _from(least: float, measured: int) -> str:
    """Say from how many tasks on one base takes fewer bytes, where that is not from the first."""
    if least == inf:
        return f"; no number of tasks up to {EXTRAPOLATE_TO} would take less"
    if least > measured:
        return f"; {least} tasks would take less"
    return "" if least == 1 else f"; {'a single task' if least == 2 else f'{least - 1} tasks'} would take more"


def _switch(storages: Sequence[Storage], rows: Sequence[KpiRow], devices: Sequence[DeviceFacts]) -> list[Phrase]:
    """Tell of the slowest switch, beside what the other side does at one."""
    switches = [(row.shared.value, row) for row in rows if row.key == "switch" and isinstance(row.shared, Figure)]
    if not switches:
        return []
    slowest, row = max(switches, key=lambda switch: switch[0])
    most = "at most " if len(switches) > 1 else ""
    opening = f"{_condition([row for _, row in switches])}a switch to another task takes {most}"
    told = [Phrase(text=opening), _range([slowest], Unit.MILLISECONDS)]
    if len(switches) > 1:
        told.append(Phrase(text=f" ({_place(row, devices)})"))
    own = [row.per_graph.value for _, row in switches if isinstance(row.per_graph, Figure)]
    if own:
        told += [Phrase(text=" instead of "), _range(own, Unit.MILLISECONDS), *_load(storages)]
    return [*told, Phrase(text=_where([row for _, row in switches], devices))]


def _load(storages: Sequence[Storage]) -> list[Phrase]:
    """Say what the other side loads at a switch, and that it is not cold: the harness has read it to check its digest."""
    sizes = [step.unet_bytes for storage in storages for step in storage.measured if step.unet_bytes]
    if not sizes:
        return []
    return [Phrase(text=f", the load of a graph of {_range(sizes, Unit.MEGABYTES).text} that had been read before")]


def _image(rows: Sequence[KpiRow], devices: Sequence[DeviceFacts]) -> list[Phrase]:
    """Return what an image costs in time and memory on the shared graph, against one graph per task."""
    clauses = []
    for key, noun in (("end_to_end", "time"), ("peak_ram", "memory")):
        compared = _compared(rows, key)
        apart = _apart(compared)
        if apart:
            clauses.append([*_extra(apart, compared), Phrase(text=f" {noun}{_most(apart, devices)}{_where(compared, devices)}")])
        elif compared:
            clauses.append([Phrase(text=f"as much {noun} as far as this run can tell")])
    if not clauses:
        return []
    first, *others = clauses
    joined = [phrase for clause in others for phrase in (Phrase(text=", and "), *clause)]
    return [Phrase(text=f"{_condition(rows)}an image takes "), *first, *joined]


def _extra(apart: Sequence[tuple[KpiRow, float]], compared: Sequence[KpiRow]) -> list[Phrase]:
    """Write how much more or less it is; the most alone, where the run cannot tell of some rows."""
    changes = [change for _, change in apart]
    if len(apart) == len(compared) or min(changes) < 0 < max(changes):
        return _change(changes)
    return [Phrase(text="up to "), *_change([max(changes, key=abs)])]


def _most(apart: Sequence[tuple[KpiRow, float]], devices: Sequence[DeviceFacts]) -> str:
    """Say where it is the most, where that is worth knowing."""
    row, most = max(apart, key=lambda each: each[1])
    return f" (most for {_place(row, devices)})" if most - min(change for _, change in apart) > _WORTH_A_PLACE else ""


def _compared(rows: Sequence[KpiRow], key: str) -> list[KpiRow]:
    """Return the rows of a figure in which both sides have it, under equal conditions where it is the time of an image."""
    unequal = {(row.device, row.task) for row in unequal_rows(rows)} if key == "end_to_end" else set()
    return [row for row in rows if row.key == key and row.ratio and (row.device, row.task) not in unequal]


def _apart(rows: Sequence[KpiRow]) -> list[tuple[KpiRow, float]]:
    return [(row, 1 / row.ratio - 1) for row in rows if row.ratio and row.is_apart]


def _condition(rows: Sequence[KpiRow]) -> str:
    """Say on what times were measured, where that is no phone."""
    elsewhere = {Caveat.VIRTUAL_DEVICE, Caveat.THIS_MACHINE}
    timed = [row for row in rows if row.unit is Unit.MILLISECONDS]
    return "on this machine's CPU, " if timed and all(elsewhere & set(row.caveats) for row in timed) else ""


def _place(row: KpiRow, devices: Sequence[DeviceFacts]) -> str:
    return f"{row.task} on {row.device.address}" if len(devices) > 1 else row.task


def _where(rows: Sequence[KpiRow], devices: Sequence[DeviceFacts]) -> str:
    """Name the devices that a sentence is about, where that are not all."""
    told = tuple(dict.fromkeys(row.device for row in rows))
    return "" if len(told) == len(devices) else f" on {_named(told)}, which alone can tell"


def _pictures(quality: Sequence[Quality], devices: Sequence[DeviceFacts]) -> list[Phrase]:
    shared = list(_means(devices, [(row.device, row.shared_reference) for row in quality]))
    own = list(_means(devices, [(row.device, row.per_graph_reference) for row in quality]))
    if not shared:
        return []
    told = [Phrase(text="pictures reach "), _decibels(shared), Phrase(text=" PSNR against the float model's on average")]
    return [*told, Phrase(text=", with one graph per task "), _decibels(own), Phrase(text="; more is nearer")] if own else told


def _means(devices: Sequence[DeviceFacts], cells: Sequence[tuple[DeviceFacts, float | str]]) -> Iterator[float]:
    for device in devices:
        if likeness := [cell for of, cell in cells if of == device and isinstance(cell, float)]:
            yield mean(likeness)


def _decibels(values: Sequence[float]) -> Phrase:
    ends = dict.fromkeys((decibels(min(values)), decibels(max(values))))
    return Phrase(text=" to ".join(ends).replace(" dB to", " to"), is_figure=True)


def _range(values: Sequence[float], unit: Unit) -> Phrase:
    """Write one value, or the lowest and highest of several: `495 to 813 ms`."""
    ends = dict.fromkeys((number(convert(min(values), unit)), number(convert(max(values), unit))))
    return Phrase(text=f"{' to '.join(ends)} {unit.value}", is_figure=True)


def _change(changes: Sequence[float]) -> list[Phrase]:
    """Write relative changes: `6 % less`, `30 to 35 % more`, `2 % less to 4 % more`."""
    low, high = sorted((min(changes), max(changes)), key=abs)
    ends = dict.fromkeys((_percent(low), _percent(high)))
    if low * high > 0 and len(ends) > 1:
        ends = dict.fromkeys((f"{abs(low):.0%}".rstrip("%"), _percent(high)))
    return [Phrase(text=" to ".join(ends), is_figure=True)]


def _percent(change: float) -> str:
    return f"{abs(change):.0%} {'more' if change > 0 else 'less'}".replace("%", " %")
