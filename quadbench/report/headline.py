"""Sentences of a report: the result with its gains and losses, missing values, and the recommended next step."""

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from math import inf
from statistics import mean

from quadbench.artifacts import Caveat, DeviceFacts, RunResult, Status, Variant
from quadbench.artifacts.run_record import has_references, shared_only_tasks
from quadbench.report.formatting import Unit, decibels, join_names, mark_figure, percent, pieces, plural, show
from quadbench.report.kpi import Figure, KpiRow, unequal_rows
from quadbench.report.launches import is_on, only_ok, paired
from quadbench.report.scores import Quality
from quadbench.report.storage import EXTRAPOLATE_TO, Storage
from quadbench.statistics import EQUIVALENCE_MARGIN, LAUNCHES_PER_BLOCK, MIN_BLOCKS, Verdict
from quadbench.statistics.intervals import MAX_BLOCKS
from quadbench.statistics.multiple_testing import TO_TELL

_WORTH_A_PLACE = 0.05  # spread of changes from which the extreme task is named
_MAX_NAMED = 3  # devices; of more, only the number is given
_NOUNS = {
    "bytes": ("fewer bytes", "more bytes"),
    "switch": ("less time to switch tasks", "more time to switch tasks"),
    "end_to_end": ("less time for an image", "more time for an image"),
    "peak_ram": ("less memory", "more memory"),
}
_OF_AN_IMAGE = {"end_to_end": "time", "peak_ram": "memory"}

ELSEWHERE = frozenset({Caveat.VIRTUAL_DEVICE, Caveat.THIS_MACHINE})  # caveats of figures that are not from a phone
_CURED = (Caveat.DEBUG_BUILD, Caveat.THROTTLED, Caveat.LOADED_HOST, Caveat.UNEVEN_CALIBRATION)  # caveats with a remedy
ENOUGH = MIN_BLOCKS * LAUNCHES_PER_BLOCK  # the fewest launches of a variant for verdicts


def headline(storages: Sequence[Storage], rows: Sequence[KpiRow], quality: Sequence[Quality]) -> tuple[str, ...]:
    """Return the summary sentences of a report, with numbers marked for bold. Return an empty tuple if nothing was measured."""
    measured = [row for row in rows if isinstance(row.shared, Figure) or isinstance(row.per_graph, Figure)]
    devices = tuple(dict.fromkeys(row.device for row in measured))
    sentences = (
        _balance(storages, measured, devices),
        _unknown(measured, devices),
        _bytes(storages),
        _switch(storages, measured, devices),
        _image(measured, devices),
        _pictures(quality, devices),
    )
    first, *others = [sentence for sentence in sentences if sentence] or [""]
    if not first:
        return ()
    where = f"both devices, {_device_names(devices)}," if len(devices) == 2 else _device_names(devices)
    return (f"On {where} {first}.", *(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in others))


def plain_text(sentences: Sequence[str]) -> str:
    """Join report sentences to one text, without the marker characters around measured values."""
    return " ".join("".join(pieces(sentence)) for sentence in sentences)


def _device_names(devices: Sequence[DeviceFacts]) -> str:
    if len(devices) > _MAX_NAMED:
        return f"{len(devices)} devices"
    return join_names([device.address for device in devices])


def _balance(storages: Sequence[Storage], rows: Sequence[KpiRow], devices: Sequence[DeviceFacts]) -> str:
    """Return a sentence, without full stop, on the bytes, time and memory that one base with LoRAs saves or costs against
    one graph per task. Name or count the tasks and devices if only some differ. Return an empty text if nothing differs.
    """
    ends = [storage.measured[-1] for storage in _with_base(storages)]
    sizes = [end.shared_bytes / end.per_graph_bytes - 1 for end in ends if end.shared_bytes and end.per_graph_bytes]
    gains, losses, somewhere = list[str](), list[str](), list[str]()
    for key, (less, more) in _NOUNS.items():
        compared = _compared(rows, key)
        apart = [row for row in compared if row.is_apart]
        changes = sizes if key == "bytes" else [_more(row) for row in apart]
        is_everywhere = key == "bytes" or {row.device for row in apart} == set(devices)
        if changes and is_everywhere and max(changes) < 0:
            gains.append(f"{_sized(changes, key)}{less}{_part(apart, compared, devices)}")
        elif changes and is_everywhere and min(changes) > 0:
            losses.append(f"{_sized(changes, key)}{more}{_part(apart, compared, devices)}")
        elif worse := [row for row in apart if _more(row) > 0]:
            somewhere.append(f"{more}{_part(worse, compared, devices)}")
    main, *costs = [join_names(part, len(_NOUNS)) for part in (gains, losses, somewhere) if part] or [""]
    if not main:
        return ""
    joints = (", but " if gains else ", and ", ", and ")
    but = "".join(f"{joint}{part}" for joint, part in zip(joints, costs, strict=False))
    return f"one base with LoRAs takes {main} than one graph per task{but}"


def _sized(changes: Sequence[float], key: str) -> str:
    """Format size changes, such as -0.2, as bold text without sign: `20 % `. For a `key` other than `bytes`, return ''."""
    if key != "bytes":
        return ""
    ends = dict.fromkeys(f"{abs(change):.0%}" for change in sorted((min(changes), max(changes)), key=abs))
    return f"{mark_figure(' to '.join(ends).replace('% to', 'to').replace('%', ' %'))} "


def _more(row: KpiRow) -> float:
    """Return the shared graph's excess over per-task graphs: 0.05 is 5 % more, -0.05 is 5 % less. Return 0 if unknown."""
    return row.judged.ratio - 1 if row.judged else 1 / row.ratio - 1 if row.ratio else 0.0


def _part(rows: Sequence[KpiRow], compared: Sequence[KpiRow], devices: Sequence[DeviceFacts]) -> str:
    """Return ` in TASK on DEVICE` for KPI rows, with a count for several. Omit the task or device part if `rows` covers all."""
    places = tuple(dict.fromkeys(row.device for row in rows)) or devices
    on = f" on {_device_names(places)}" if len(places) < len(devices) else ""
    there = [row for row in compared if row.device in places]
    if len(rows) == len(there):
        return on
    if len(rows) == 1:
        return f" in {rows[0].task}{on}"
    return f" in {len(rows)} of {plural(len(there), 'task' if len(places) == 1 else 'comparison')}{on}"


def _unknown(rows: Sequence[KpiRow], devices: Sequence[DeviceFacts]) -> str:
    """Return text on inconclusive verdicts about image time or memory, and why. Return '' if no verdict is inconclusive."""
    unknown, nouns = list[KpiRow](), list[str]()
    for key, noun in _OF_AN_IMAGE.items():
        compared = _compared(rows, key)
        if these := [row for row in compared if row.claim is Verdict.INCONCLUSIVE]:
            unknown += these
            nouns.append(f"more {noun}{_part(these, compared, devices)}")
    if not unknown:
        return ""
    return f"it is unknown whether an image takes {' or '.join(nouns)} than with one graph per task{_why_unknown(unknown)}"


def _why_unknown(rows: Sequence[KpiRow]) -> str:
    launches = min(min(side.launches for side in (row.shared, row.per_graph) if isinstance(side, Figure)) for row in rows)
    judged = [row.judged for row in rows if row.judged]
    if not judged:
        few = f" ({plural(launches, 'launch')} of each variant; a verdict needs {ENOUGH})"
        return few if launches < LAUNCHES_PER_BLOCK else ", as the launches of the two variants did not alternate"
    launches = min(one.blocks for one in judged) * LAUNCHES_PER_BLOCK
    needed = [one.launches_needed for one in judged if one.launches_needed is None or one.launches_needed > launches]
    opening = f" ({plural(launches, 'launch')} of each variant"
    if None in needed:
        return f"{opening}; even {MAX_BLOCKS * LAUNCHES_PER_BLOCK} would not show {percent(TO_TELL, 0)})"
    if needed:
        return f"{opening}; {max(filter(None, needed))} would show {percent(TO_TELL, 0)})"
    ends = [end - 1 for one in judged for end in (one.low, one.high)]
    return f"{opening}; 95 % interval: {_change(ends)}; under {percent(EQUIVALENCE_MARGIN, 0)} counts as the same)"


def _with_base(storages: Sequence[Storage]) -> list[Storage]:
    """Return a list of `Storage` objects (file sizes) in which one base with the LoRAs of all tasks has a known total size."""
    return [storage for storage in storages if storage.measured and storage.measured[-1].shared_bytes is not None]


def _bytes(storages: Sequence[Storage]) -> str:
    with_base = _with_base(storages)
    ends = [storage.measured[-1] for storage in with_base]
    if not ends:
        return ""
    shared = [end.shared_bytes for end in ends if end.shared_bytes is not None]
    own = [end.per_graph_bytes for end in ends if end.per_graph_bytes]
    text = f"the files of {plural(ends[0].count, 'task')} take {mark_figure(_range(shared, Unit.MEGABYTES))}"
    if len(own) < len(ends):
        return f"{text} as one base with LoRAs"
    change = mark_figure(_change([one / other - 1 for one, other in zip(shared, own, strict=True)]))
    least, since = max(map(_break_even, with_base)), ""
    if least == inf:
        since = f"; one base would not take less with up to {EXTRAPOLATE_TO} tasks"
    elif least > ends[0].count:
        since = f"; with {least} tasks one base would take less"
    elif least > 1:
        since = f"; with {'a single task' if least == 2 else f'{least - 1} tasks'} one base takes more"
    text += f" instead of {mark_figure(_range(own, Unit.MEGABYTES))} ({change}{since})"
    if growth := with_base[0].growth:
        count, *sizes = growth.steps[-1]
        shared_then, own_then = (mark_figure(_range([size], Unit.MEGABYTES)) for size in sizes)
        random = f", {len(growth.random)} of them with random LoRAs," if growth.random else ""
        text += f"; {count} tasks of the same model{random} took {shared_then} instead of {own_then} in an earlier run"
    return text


def _break_even(storage: Storage) -> float:
    """Return the least task count for which one base with LoRAs takes fewer bytes than one graph per task, else infinity."""
    steps = [(step.count, step.shared_bytes, step.per_graph_bytes) for step in (*storage.measured, *storage.extrapolated)]
    return next((count for count, shared, own in steps if shared is not None and own is not None and shared < own), inf)


def _switch(storages: Sequence[Storage], rows: Sequence[KpiRow], devices: Sequence[DeviceFacts]) -> str:
    """Return text that compares switch times of the shared graph and per-task graphs. Return '' if the shared graph has none."""
    switches = [(row.shared.value, row) for row in rows if row.key == "switch" and isinstance(row.shared, Figure)]
    if not switches:
        return ""
    slowest, row = max(switches, key=lambda switch: switch[0])
    text, every = mark_figure(_range([slowest], Unit.MILLISECONDS)), [row for _, row in switches]
    if len(switches) > 1:
        text = f"at most {text} ({_place(row, devices)})"
    own = [row.per_graph.value for row in every if isinstance(row.per_graph, Figure)]
    if own:
        # A per-graph load is not cold: the harness has read the file to check its digest.
        sizes = [step.unet_bytes for storage in storages for step in storage.measured if step.unet_bytes]
        load = f", which load a graph of {_range(sizes, Unit.MEGABYTES)} from the page cache" if sizes else ""
        text += f" instead of {mark_figure(_range(own, Unit.MILLISECONDS))}{load}"
    there = tuple(dict.fromkeys(row.device for row in every))
    where = "" if len(there) == len(devices) else f" on {_device_names(there)}, measured only there"
    return f"{_condition(every)}a switch to another task takes {text}{where}"


def _image(rows: Sequence[KpiRow], devices: Sequence[DeviceFacts]) -> str:
    """Return text on image time and memory of the shared graph against per-task graphs. Return '' if no verdict is conclusive."""
    clauses = []
    for key, noun in _OF_AN_IMAGE.items():
        compared = _compared(rows, key)
        apart, same = [row for row in compared if row.is_apart], [row for row in compared if row.claim is Verdict.SAME]
        if apart:
            change, part = mark_figure(_change([_more(row) for row in apart])), _part(apart, compared, devices)
            ends = [end - 1 for row in apart if row.judged for end in (row.judged.low, row.judged.high)]
            most = max(apart, key=_more)
            is_worth_a_place = _more(most) - min(map(_more, apart)) > _WORTH_A_PLACE
            place = f"; most for {_place(most, devices)}" if is_worth_a_place else ""
            clauses.append(f"{change} {noun}{part} (95 % intervals: {mark_figure(_change(ends))}{place})")
        if same:
            clauses.append(f"the same {noun} within {percent(EQUIVALENCE_MARGIN, 0)}{_part(same, compared, devices)}")
    return f"{_condition(rows)}an image takes {', and '.join(clauses)}" if clauses else ""


def _compared(rows: Sequence[KpiRow], key: str) -> list[KpiRow]:
    """Return a metric's KPI rows that have values for both variants: the shared graph and one graph per task. Rows of times are
    left out if the two variants ran under unequal conditions, such as temperature.
    """
    of_key = [row for row in rows if row.key == key and row.ratio]
    if not any(row.unit is Unit.MILLISECONDS for row in of_key):
        return of_key
    unequal = {(row.device, row.task) for row in unequal_rows(rows)}
    return [row for row in of_key if (row.device, row.task) not in unequal]


def _condition(rows: Sequence[KpiRow]) -> str:
    """Return the prefix `on this machine's CPU, ` if `rows` has times and none is from a phone, else an empty string."""
    timed = [row for row in rows if row.unit is Unit.MILLISECONDS]
    return "on this machine's CPU, " if timed and all(ELSEWHERE & set(row.caveats) for row in timed) else ""


def _place(row: KpiRow, devices: Sequence[DeviceFacts]) -> str:
    return f"{row.task} on {row.device.address}" if len(devices) > 1 else row.task


def _pictures(quality: Sequence[Quality], devices: Sequence[DeviceFacts]) -> str:
    shared = list(_means(devices, [(row.device, row.shared_reference) for row in quality]))
    own = list(_means(devices, [(row.device, row.per_graph_reference) for row in quality]))
    if not shared:
        return ""
    text = f"pictures reach {_decibels(shared)} PSNR against the float model's on average"
    return f"{text}, with one graph per task {_decibels(own)}; higher is better" if own else text


def _means(devices: Sequence[DeviceFacts], cells: Sequence[tuple[DeviceFacts, float | str]]) -> Iterator[float]:
    for device in devices:
        if likeness := [cell for of, cell in cells if of == device and isinstance(cell, float)]:
            yield mean(likeness)


def _decibels(values: Sequence[float]) -> str:
    ends = dict.fromkeys((decibels(min(values)), decibels(max(values))))
    return mark_figure(" to ".join(ends).replace(" dB to", " to"))


def _range(values: Sequence[float], unit: Unit) -> str:
    """Format one value, or the range of several values: `495 to 813 ms`."""
    ends = dict.fromkeys((show(min(values), unit), show(max(values), unit)))
    return f"{' to '.join(ends)} {unit.value}"


def _change(changes: Sequence[float]) -> str:
    """Format relative changes, such as 0.3, as one value or a range: `6 % less`, `30 to 35 % more`, `2 % less to 4 % more`."""
    low, high = sorted((min(changes), max(changes)), key=abs)
    ends = dict.fromkeys((_percent(low), _percent(high)))
    if low * high > 0 and len(ends) > 1:
        ends = dict.fromkeys((f"{abs(low):.0%}".rstrip("%"), _percent(high)))
    return " to ".join(ends)


def _percent(change: float) -> str:
    return f"{percent(abs(change), 0)} {'more' if change > 0 else 'less'}"


def missing_figures(result: RunResult, rows: Sequence[KpiRow]) -> tuple[str, ...]:
    """Return a tuple of sentences on a report's gaps: missing values with the reason, lost devices, uncounted launches."""
    ran = {record.variant for record in result.records if record.status is Status.OK}
    tried = {record.variant for record in result.records}
    missing = [*_run_events(result)]
    if not result.records:
        missing.append("No launch was run, so there are no figures at all.")
    elif not ran:
        missing.append("No launch was OK, so there are no figures; the launches table has the reasons.")
    elif Variant.SHARED not in ran:
        missing.append("No launch of the shared graph was OK, so there is nothing to compare.")
    elif Variant.PER_GRAPH not in ran:
        why = (
            "no launch of them was OK"
            if Variant.PER_GRAPH in tried
            else "the run did not reach them"
            if Variant.PER_GRAPH in (result.planned or {})
            else "the recipe does not request them (baselines: [per-graph])"
        )
        missing.append(f"One graph per task was not compared: {why}.")
    elif admitted := shared_only_tasks(result.bundle):
        missing.append(
            f"Per-graph figures of {', '.join(admitted)} are missing: an admitted adapter has no graph of its own; "
            "to build one, add the adapter to the recipe and use quadbench run RECIPE."
        )
    if ran and not has_references(result.bundle):
        missing.append("The weights are random, so there are no reference pictures.")
    elif ran and Variant.FLOAT not in ran:
        missing.append("The float graph did not run, so the device was not compared with the Python reference.")
    if ran and has_references(result.bundle) and not any(item.truth for task in result.bundle.tasks for item in task.items):
        missing.append("No truth (ground-truth pictures) was given, so pictures are only compared with the float reference.")
    measured_devices = {row.device for row in rows if isinstance(row.shared, Figure) or isinstance(row.per_graph, Figure)}
    for device in result.devices if measured_devices else ():  # the headline leaves out devices without figures
        if device not in measured_devices:
            was_tried = any(is_on(record, device) for record in result.records)
            why = "no launch there was OK" if was_tried else "nothing was launched there"
            missing.append(f"{device.address} has no figures: {why}.")
    missing += filter(None, (_out_of_turn(result, device) for device in result.devices))
    unequal = unequal_rows(rows)
    for device in dict.fromkeys(row.device for row in unequal):
        missing.append(_unequal([row for row in unequal if row.device == device]))
    compared = ran & {Variant.SHARED, Variant.PER_GRAPH}
    if compared and not any(isinstance(cell, Figure) for row in rows for cell in (row.shared, row.per_graph)):
        missing.append("The launches have no samples.")
    return tuple(missing)


def _out_of_turn(result: RunResult, device: DeviceFacts) -> str | None:
    """Return a sentence if OK launches of a device lie outside complete A B B A blocks (A and B are the variants). Return a
    different sentence if no block is complete, although both variants have at least two OK launches. Otherwise return None.
    """
    counts = paired(result, device)
    if counts.left_out:
        which = f"{plural(counts.left_out, 'launch')} on {device.address} ended OK"
        return f"{which}, but no figure includes them: only complete blocks A B B A of OK launches count."
    if counts.blocks or min(len(counts.shared), len(counts.per_graph)) < LAUNCHES_PER_BLOCK:
        return None
    return (
        f"On {device.address} no block of launches A B B A is complete. Drift of the device may affect one variant only, "
        "so the report claims no difference of times or memory. Set measure.order: abba."
    )


def _unequal(rows: Sequence[KpiRow]) -> str:
    """Return a warning not to compare times: the variants ran under different conditions in the tasks of `rows` (one device)."""
    first, tasks = rows[0], " and ".join(row.task for row in rows)
    shared, own = (show(side.value, first.unit) for side in (first.shared, first.per_graph) if isinstance(side, Figure))
    return (
        f"On {first.device.address} the two variants ran under different conditions in {tasks}: {first.title}, the same file "
        f"in both, took {shared} {first.unit.value} shared and {own} {first.unit.value} per graph. Do not compare these times."
    )


def _run_events(result: RunResult) -> Iterator[str]:
    """Yield sentences on an interrupted run, on devices excluded from it, and on devices that were lost and came back."""
    if result.is_cut_short:
        devices = {device.address for device in result.devices if not device.is_hosted}
        planned = sum((result.planned or {}).values()) * len(devices)
        stored = sum(not record.device.is_hosted and record.status is not Status.DISCARDED for record in result.records)
        count = f": {stored} of {planned} planned launches are stored" if planned else ""
        yield f"The run was cut short, or is still running{count}."
    for address, reason in result.left_out.items():
        yield f"{address}: {reason.rstrip('.')}."
    for retry in result.retries:
        yield f"{retry.address} was lost and came back after {retry.away_s:.0f} s: {retry.reason.rstrip('.')}."


def next_step(
    result: RunResult,
    caveats: Iterable[Caveat],
    *,
    is_unequal: bool = False,
    launches: int = ENOUGH,
    words: Sequence[str] = (),
) -> str:
    """Return a text that recommends the next step after a run, such as to resume it. The text is empty without advice.
    `launches` is how many launches per variant a verdict needs. `words` are command options that name the results folder.
    """
    if result.is_cut_short:
        return f"Resume the run: quadbench {shlex.join(('run', '--resume', result.run_id, *words))}"
    if any(not record.status.is_fine for record in result.records):
        return "Read why launches failed, check the device with quadbench doctor --device NAME, and run again."
    doubted = set(caveats)
    steps = []
    if not ELSEWHERE.isdisjoint(doubted):
        steps.append("Attach a phone, look up its name with quadbench devices, and run again with --devices NAME.")
    else:
        steps += [caveat.remedy for caveat in _CURED if caveat in doubted]
    if is_unequal:
        steps.append("Run again while nothing else runs: the two variants ran under different conditions.")
    settings = []
    if _launches(result, launches) < launches:
        settings.append(f"set measure.launches to {launches} for verdicts on times and memory")
    elif Caveat.FEW_SAMPLES in doubted:
        settings.append("raise measure.iterations for percentiles")
    if Caveat.STILL_WARMING in doubted:
        settings.append("raise measure.warmup, as the first images were slower")
    if settings:
        steps.append(f"In the recipe, {' and '.join(settings)}.")
    return " ".join(steps)


def next_of_comparison(caveats: Iterable[Caveat], *, is_in_turn: bool, is_decided: bool) -> str:
    """Return the recommended next step after a comparison as text. The text ends with a colon if a command must follow."""
    doubted = set(caveats)
    if not is_in_turn:
        return "To get a verdict, launch both in turn:"
    steps = remedies(doubted)
    if not ELSEWHERE.isdisjoint(doubted):
        steps.append("Attach a phone, look up its name with quadbench devices, and replace NAME with it:")
    elif steps:
        steps.append("Then:")
    elif not is_decided:
        return "Set a larger difference with --to-see, or repeat the comparison at a quieter time:"
    return " ".join(steps) or "Nothing has to be done."


def remedies(caveats: Collection[Caveat]) -> list[str]:
    """Return a list of sentences that say how to remove caveats. Only five caveats are handled, such as a debug build."""
    return [caveat.remedy for caveat in (*_CURED, Caveat.STILL_WARMING) if caveat in caveats]


def _launches(result: RunResult, enough: int) -> int:
    """Return the least count, over devices, of the shared graph's OK launches. Return `enough` if a variant has no OK launch."""
    records = only_ok(result.records)
    if not {Variant.SHARED, Variant.PER_GRAPH} <= {record.variant for record in records}:
        return enough
    return min(Counter(record.device.address for record in records if record.variant is Variant.SHARED).values())
