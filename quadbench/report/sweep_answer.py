"""Summary of a sweep in a few sentences for each device, and its tables as text and CSV."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from statistics import fmean

from quadbench.recipe.published import published_table
from quadbench.report import sweep as sweeps
from quadbench.report.formatting import Column, TextTable, between, change, csv_text, decibels, labelled, percent, plural
from quadbench.report.sweep import Delta, NoiseScale, Sweep, SweepFigure, SweepPoint, change_from, deltas, noise_scale, quality_of
from quadbench.statistics import Verdict

_NAMED = 4  # settings, and tasks, that a sentence names
_Settings = Mapping[str, Sequence[SweepPoint]]  # the points of a device by setting, one per task
_Row = tuple[SweepPoint, SweepPoint | None]  # a point and the one above it

_NOTE = (
    "Shared graph; PSNR is against the float reference of the same setting. ±: standard error over items. change: difference of "
    "the same items' PSNR from the row above. Times: median of the launches' medians."
)
_TEACHER_NOTE = (
    "PSNR to teacher: against the float pictures of 100 DDIM steps; shows what fewer steps and rounding cost together."
)
_BEST_NOTE = "*: no other row is known to be better in {quality}, end-to-end time or all files, and as good in the others."
_UNTOUCHED = ", unchanged by the sweep: its times show the noise"
_TELLING = (sweeps.PSNR, sweeps.PSNR_TEACHER, sweeps.PSNR_TRUTH, sweeps.TIME, sweeps.BYTES, sweeps.RAM)

_DECIMALS = {"dB": 2, "ms": 1, "%": 1, "MB": 2}


def sweep_answer(sweep: Sweep) -> tuple[str, ...]:
    """Return the result of a sweep in sentences for each device: the best setting, differences from it, noise, missing values."""
    devices = dict.fromkeys(point.device for point in sweep.points)
    sentences = [sentence for device in devices for sentence in _of_device(sweep, device)]
    failed = [f"{setting} was left out: {reason}" for setting, reason in sweep.left_out.items()]
    return (*sentences, *failed) or ("No setting has a figure.",)


def _of_device(sweep: Sweep, device: str) -> Iterator[str]:
    points = [point for point in sweep.points if point.device == device]
    touched = [point for point in points if point.task in sweep.touched]
    settings = {name: [point for point in touched if point.name == name] for name in dict.fromkeys(p.name for p in touched)}
    scale = noise_scale(sweep, device)
    if len(settings) > 1:
        top = best_setting(settings)
        others = sorted((value for value in settings if value != top), key=lambda value: not _is_best(settings[value]))
        sentences = [f"On {device}, {top} {_quality_text(settings[top])}."]
        sentences += [f"{value} against {top}: {_against(settings[value], settings[top], scale)}." for value in others[:_NAMED]]
        if len(others) > _NAMED:
            sentences.append(f"{len(others) - _NAMED} more are in the table.")
        yield " ".join(sentences)
        yield _order(settings, scale)
    elif settings:
        yield f"On {device}, there is only one setting, so there is nothing to compare."
    else:
        yield f"On {device}, the keys change nothing that a task computes: differences between rows are noise."
    rest = dict.fromkeys(point.task for point in points if point.task not in sweep.touched)
    if rest and scale.noise is not None:
        apart = f"times of {', '.join(rest)}, which the keys do not change, differ by up to {percent(scale.noise - 1)}"
        yield f"Noise on {device}: {apart} between rows, so smaller differences of times do not count."
    if touched and not any(map(_quality, touched)):
        yield f"On {device}, no pictures were scored: quality is not in this comparison."
    if touched and not any(point.figure(sweeps.TIME) for point in touched):
        yield f"On {device}, there are no times."


def best_setting(settings: _Settings) -> str:
    """Return the key of the setting with the highest PSNR (mean over tasks, to 0.1 dB). Of equal settings, choose the fastest."""

    def merit(points: Sequence[SweepPoint]) -> tuple[float, float]:
        values = [figure.value for point in points if (figure := _quality(point))]
        times = [figure.value for point in points if (figure := point.figure(sweeps.TIME))]
        return round(fmean(values), 1) if values else float("-inf"), -fmean(times) if times else float("-inf")

    return max(settings, key=lambda value: merit(settings[value]))


def _quality(point: SweepPoint) -> SweepFigure | None:
    return point.figure(quality_of([point]) or "")


def _is_best(points: Sequence[SweepPoint]) -> bool:
    return any(point.is_best for point in points)


def _quality_text(points: Sequence[SweepPoint]) -> str:
    figures = [(point.task, figure) for point in points if (figure := _quality(point))]
    if not figures:
        return "is the first setting"
    if len(figures) > _NAMED:
        low, high = (decibels(end(figure.value for _, figure in figures)) for end in (min, max))
        return f"reaches {low} to {high} {figures[0][1].title} ({plural(len(figures), 'task')})"
    return f"reaches {', '.join(f'{decibels(figure.value)} {figure.title} ({task})' for task, figure in figures)}"


def _against(points: Sequence[SweepPoint], top: Sequence[SweepPoint], scale: NoiseScale) -> str:
    """Return text on how a setting (`points`, one per task) differs from the best setting (`top`) in PSNR, time and file size."""
    of_tasks = {point.task: point for point in top}
    diffs = {p.task: deltas(p, of_tasks[p.task], scale) for p in points if p.task in of_tasks}
    quality = {task: one for task, own in diffs.items() for key, one in own.items() if key not in (sweeps.TIME, sweeps.BYTES)}
    times, sizes = ({task: own[key] for task, own in diffs.items() if key in own} for key in (sweeps.TIME, sweeps.BYTES))
    parts = [
        *([f"PSNR {_delta_text(quality, _decibels_between)}"] if quality else []),
        *([f"time {_delta_text(times, _between)}"] if times else []),
        *([f"all files {_delta_text(dict([next(iter(sizes.items()))]), _between)}"] if sizes else []),
    ]
    return "; ".join(parts) or "no figure in common"


def _delta_text(these: Mapping[str, Delta], write: Callable[[float, float], str]) -> str:
    """Return text on how a metric differs between two settings. It groups the tasks as different, the same or inconclusive."""
    told_apart = {task: one for task, one in these.items() if one.is_told}
    sizes = sorted(one.size for one in told_apart.values())
    unknown = {task: one for task, one in these.items() if one.verdict is Verdict.INCONCLUSIVE}
    groups = {
        _range_text(sizes, write) if sizes else "": list(told_apart),
        "the same": [task for task, one in these.items() if one.verdict is Verdict.SAME],
        _not_established(list(unknown.values()), write): list(unknown),
    }
    phrases = [(words, tasks) for words, tasks in groups.items() if tasks]
    if len(phrases) > 1:
        return ", ".join(
            f"{words} ({', '.join(tasks) if len(tasks) <= _NAMED else plural(len(tasks), 'task')})" for words, tasks in phrases
        )
    one = next(iter(these.values()))
    is_alone = len(these) == 1 and not unknown
    interval = f" ({write(one.low, one.high)})" if is_alone and one.low is not None and one.high is not None else ""
    return f"{phrases[0][0]}{interval}"


def _not_established(these: Sequence[Delta], write: Callable[[float, float], str]) -> str:
    """Format inconclusive differences of two settings with the reason: noise, a wide interval, or too few measurements."""
    if not these:
        return ""
    sizes, ends = [one.size for one in these], [(one.low, one.high) for one in these]
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    if all(one.is_noise for one in these):
        why = "the noise is as large"
    elif len(known) == len(these):
        why = f"the 95 % interval is {write(min(low for low, _ in known), max(high for _, high in known))}"
    else:
        why = "too few were measured for an interval"
    return f"{_range_text(sizes, write)} as measured, not established: {why}"


def _range_text(sizes: Sequence[float], write: Callable[[float, float], str]) -> str:
    """Format `sizes` (a ratio or dB difference per task) as a range. Add `from task to task` if its ends print differently."""
    low, high = min(sizes), max(sizes)
    return f"{write(low, high)}{' from task to task' if write(low, low) != write(high, high) else ''}"


def _between(low: float, high: float) -> str:
    """Format a range of ratios: `the same`, `12.0 % less` or `2.1 to 4.2 % more`."""
    if change(low) == change(high):
        return "the same" if low == 1 else change(low)
    return between(low, high)


def _decibels_between(low: float, high: float) -> str:
    """Format a PSNR difference range: `0.4 dB less`, `0.2 to 0.4 dB less` or `0.1 dB less to 0.3 dB more`."""
    near, far = sorted((low, high), key=abs)
    if _decibels(near) == _decibels(far):
        return _decibels(far)
    return f"{abs(near):.1f} to {_decibels(far)}" if low * high > 0 else f"{_decibels(low)} to {_decibels(high)}"


def _decibels(difference: float) -> str:
    return f"{abs(difference):.1f} dB {'more' if difference > 0 else 'less'}"


def _order(settings: _Settings, scale: NoiseScale) -> str:
    """Return a sentence: which setting beats all others, or else which settings are beaten, or else that none is beaten."""
    rated = [value for value, points in settings.items() if any(map(_quality, points))]
    best = [value for value in rated if _is_best(settings[value])]
    beaten = [value for value in rated if value not in best]
    if beaten and len(best) == 1:
        return f"{best[0]} beats the others: it is better in at least one figure and as good in the rest."
    if beaten and best:
        return f"Beaten, as another is better in at least one figure and as good in the rest: {', '.join(beaten)}."
    bare = [value for value, points in settings.items() if not any(map(_is_comparable, points))]
    apart = _apart([points for value, points in settings.items() if value not in bare], scale)
    return f"{apart} Without a figure to compare: {', '.join(bare)}." if bare else apart


def _is_comparable(point: SweepPoint) -> bool:
    return any(point.figure(key) for key in (quality_of([point]), sweeps.TIME, sweeps.BYTES) if key)


def _apart(settings: Sequence[Sequence[SweepPoint]], scale: NoiseScale) -> str:
    """Return a sentence on settings of which none beats another: whether they are known to differ in quality, time or bytes."""
    first, *rest = settings or [[]]
    pairs = [(point, other) for points in rest for point in points for other in first if other.task == point.task]
    diffs = [(key, one) for pair in pairs for key, one in deltas(*pair, scale).items()]
    if not diffs:
        return "Nothing can be compared: no figure was measured at every setting."
    if all(one.verdict is Verdict.SAME for _, one in diffs):
        return "The settings do not differ in any figure."
    unknown = {key for key, one in diffs if one.verdict is Verdict.INCONCLUSIVE}
    more = " More inputs for each task make the intervals of pictures narrower." if unknown - {sweeps.TIME, sweeps.BYTES} else ""
    if not any(one.is_told for _, one in diffs):
        return f"No setting is shown to be better than another.{more}"
    return f"No setting is shown to beat another, that is, to be better in one figure and as good in the rest.{more}"


def settling_command(sweep: Sweep) -> tuple[str, ...]:
    """Return arguments of `quadbench compare` for two runs of which the faster one is unknown; () if there are no such runs."""
    runs = {point.run_id: point for point in sweep.points if point.task in sweep.touched and point.figure(sweeps.TIME)}
    if len(runs) < 2:
        return ()
    settings = {point.value: [point] for point in runs.values()}
    top = settings[best_setting(settings)][0]
    pairs = combinations((top, *(point for point in runs.values() if point is not top)), 2)
    one, other = next((pair for pair in pairs if _is_open(sweep, *pair)), (None, None))
    return ("compare", one.run_id, other.run_id, "--devices", one.device) if one and other else ()


def _is_open(sweep: Sweep, one: SweepPoint, other: SweepPoint) -> bool:
    """Return True if, for any task on the device of `one`, it is unknown whether run `one` or run `other` makes images faster."""
    scale, diffs = noise_scale(sweep, one.device), []
    for task in sweep.touched:
        mine, theirs = (
            next((p for p in sweep.points if (p.run_id, p.task, p.device) == (run.run_id, task, one.device)), None)
            for run in (one, other)
        )
        if mine and theirs and mine.figure(sweeps.TIME) and theirs.figure(sweeps.TIME):
            diffs.append(deltas(mine, theirs, scale).get(sweeps.TIME))
    return any(merit is None or merit.verdict is Verdict.INCONCLUSIVE for merit in diffs)


def sweep_tables(sweep: Sweep, *, is_whole: bool = True) -> tuple[TextTable, ...]:
    """Return a table for each task and device: a row per setting, a column per metric (only the main ones if not `is_whole`)."""
    return tuple(_table(sweep, points, is_whole) for points in sweeps.series_of(sweep))


def sweep_csv(sweep: Sweep) -> str:
    """Return the sweep as CSV: one line for each setting, task, device and metric, with full precision."""
    fields = ("task", "device", "figure", "unit", "mean", "standard_error", "n", "published", "is_best", "run_id")
    rows = (
        (
            *(*point.setting.values(), point.task, point.device),
            *(figure.key, figure.unit, figure.value, figure.error, figure.n, figure.published),
            *(int(point.is_best), point.run_id),
        )
        for point in sweep.points
        for figure in point.figures
    )
    return csv_text((*sweep.keys, *fields), rows)


def _table(sweep: Sweep, points: Sequence[SweepPoint], is_whole: bool) -> TextTable:
    keys = [Column(name=_short(key, sweep.keys), cell=partial(_setting, key), is_numeric=True) for key in sweep.keys]
    columns = [*keys, *_columns(points, is_whole)]
    if sweeps.is_telling(points):
        columns.append(Column(name="best", cell=lambda row: "*" if row[0].is_best else "", is_numeric=True))
    untouched = "" if points[0].task in sweep.touched else _UNTOUCHED
    title = f"{sweep.recipe_name}: {points[0].task} on {points[0].device}, over {', '.join(sweep.keys)}{untouched}"
    return TextTable.of(title, columns, zip(points, [None, *points], strict=False), _notes(sweep, points))


def _short(key: str, keys: Sequence[str]) -> str:
    """Return the last part of a dotted recipe key, or more parts if another key ends with the same part."""
    words = key.split(".")
    ends = (".".join(words[-count:]) for count in range(1, len(words)))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)


def _setting(key: str, row: _Row) -> str:
    return row[0].setting[key]


def _columns(points: Sequence[SweepPoint], is_whole: bool) -> Iterator[Column[_Row]]:
    known = {figure.key: figure for point in points for figure in point.figures}
    for key, figure in known.items() if is_whole else ((key, known[key]) for key in _TELLING if key in known):
        yield Column(name=labelled(figure.title, figure.unit), cell=partial(_cell, key), is_numeric=True)
        if key == sweeps.PSNR and is_whole:
            yield Column(name="change", cell=_change, is_numeric=True)
        if is_whole and any((own := point.figure(key)) and own.published is not None for point in points):
            yield Column(name=f"{figure.title}, published", cell=partial(_published, key), is_numeric=True)


def _notes(sweep: Sweep, points: Sequence[SweepPoint]) -> Iterator[str]:
    yield _NOTE
    if any(point.figure(sweeps.PSNR_TEACHER) for point in points):
        yield _TEACHER_NOTE
    if (quality := quality_of(points)) and sweeps.is_telling(points):
        yield _BEST_NOTE.format(quality=next(figure.title for point in points if (figure := point.figure(quality))))
    if sweep.published and any(figure.published is not None for point in points for figure in point.figures):
        yield published_table(sweep.published).note
    yield from (f"{point.value}: {point.reason}" for point in points if point.reason)
    for caveat in dict.fromkeys(caveat for point in points for caveat in point.caveats):
        yield f"{caveat.label}: {caveat.advice}"


def _cell(key: str, row: _Row) -> str:
    figure = row[0].figure(key)
    if figure is None:
        return "-"
    error = "" if figure.error is None else f" ± {_number(figure.error, figure.unit)}"
    return f"{_number(figure.value, figure.unit)}{error}"


def _change(row: _Row) -> str:
    point, above = row
    difference = change_from(point, above, sweeps.PSNR) if above else None
    return f"{difference[0]:+.2f} ± {difference[1]:.2f}" if difference else ""


def _published(key: str, row: _Row) -> str:
    figure = row[0].figure(key)
    return "" if figure is None or figure.published is None else f"{figure.published:g}"


def _number(value: float, unit: str) -> str:
    """Format a value with its unit's usual decimals. If it would round to zero, use two significant digits."""
    decimals = _DECIMALS.get(unit, 4)
    return f"{value:.{decimals}f}" if not value or abs(value) >= 10 ** (1 - decimals) else f"{value:.2g}"
