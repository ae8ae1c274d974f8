"""Conditions: an expression over a run's figures, as `shared.end_to_end_ms.p50 > 200` -> where it holds. Pure."""

import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from quadbench.artifacts import Variant
from quadbench.errors import UnknownNameError, UserError, shown
from quadbench.report.baseline import Baseline
from quadbench.report.kpi import KPI_UNITS, NOT_APPLICABLE, Figure, KpiRow
from quadbench.report.pictures import Quality
from quadbench.report.units import convert
from quadbench.statistics import Verdict

_LONGEST = 1000  # characters
_DEEPEST = 20  # parentheses within each other
_TOKEN = re.compile(
    r"\s*(?:(?P<name>[a-z][a-z0-9_-]*(?:\.[a-z0-9][a-z0-9_-]*)+)|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<sign>(?:and|or)\b|[<>=!]=|[<>()*/+-]))"
)
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip
Values = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Expression:
    """An expression that was read: `holds` says whether it does for values of its `names`, of which some stand `alone`.

    It raises ArithmeticError where a part of it is no finite number for them, whatever the other parts say.
    """

    text: str
    names: tuple[str, ...]
    alone: tuple[str, ...]
    holds: Callable[[Values], bool]


def read_expression(text: str) -> Expression:
    """Read an expression. Nothing in it is executed.

    Raises:
        UserError: it is none; the message says where it ends to be one.
    """
    if len(text) > _LONGEST:
        raise UserError(f"found an expression of {len(text)} characters; expected at most {_LONGEST}")
    reader = _ExpressionReader(text)
    holds = reader.alternatives()
    if reader.kind:
        raise reader.refused("and, or, or its end")
    return Expression(text=text, names=tuple(dict.fromkeys(reader.names)), alone=tuple(reader.alone), holds=holds)


class _ExpressionReader:
    """A reader of one expression, from left to right; `token` is the next one, of the `kind` name, number or sign."""

    def __init__(self, text: str) -> None:
        self.names: list[str] = []
        self.alone: list[str] = []
        self._text = text.rstrip()
        self._end = 0
        self._depth = 0
        self._next()

    def alternatives(self) -> Callable[[Values], bool]:
        """Read comparisons that are joined by `and`, and such by `or`."""
        either = [self._together()]
        while self.token == "or":
            self._next()
            either.append(self._together())
        return lambda values: any(_each(either, values))

    def refused(self, expected: str) -> UserError:
        """Return the error of an expression that goes on otherwise than `expected`."""
        rest = self._text[self._start :]
        return UserError(f"'{self._text}' is no expression: expected {expected}, found {shown(rest) if rest else 'its end'}")

    def _together(self) -> Callable[[Values], bool]:
        every = [self._comparison()]
        while self.token == "and":
            self._next()
            every.append(self._comparison())
        return lambda values: all(_each(every, values))

    def _comparison(self) -> Callable[[Values], bool]:
        kind, word, start = self.kind, self.token, self._start
        left = self._sum()
        compare = _COMPARISONS.get(self.token)
        if compare is None and kind == "name" and self._text[start : self._start].strip() == word:
            self.alone.append(word)
            return lambda values: bool(_finite(left(values)))
        if compare is None:
            raise self.refused("a comparison, as < or >=")
        self._next()
        right = self._sum()
        return lambda values: compare(_finite(left(values)), _finite(right(values)))

    def _sum(self) -> Callable[[Values], float]:
        return self._chain("+-", lambda: self._chain("*/", self._atom))

    def _chain(self, signs: str, part: Callable[[], Callable[[Values], float]]) -> Callable[[Values], float]:
        value = part()
        while self.kind == "sign" and self.token in signs:
            value = _combined(_ARITHMETIC[self._next()], value, part())
        return value

    def _atom(self) -> Callable[[Values], float]:
        kind, token = self.kind, self.token
        if kind == "number":
            self._next()
            number = float(token)
            return lambda _: number
        if kind == "name":
            self.names.append(self._next())
            return lambda values: values[token]
        if token != "(" or self._depth == _DEEPEST:
            raise self.refused("a name or a number")
        self._depth += 1
        self._next()
        value = self._sum()
        if self.token != ")":
            raise self.refused(")")
        self._next()
        self._depth -= 1
        return value

    def _next(self) -> str:
        """Go on to the next token, and return the one before."""
        before, self._start = getattr(self, "token", ""), self._end
        match = _TOKEN.match(self._text, self._end)
        self.kind, self.token = (match.lastgroup or "", match[match.lastgroup or 0]) if match else ("", "")
        if match:
            self._end = match.end()
        elif self._text[self._end :].strip():
            raise self.refused("a name as shared.end_to_end_ms.p50, a number or a sign")
        return before


def _each(parts: Sequence[Callable[[Values], bool]], values: Values) -> list[bool]:
    """Return what every part comes to, also of those that would decide nothing any more: none may be undefined."""
    return [holds(values) for holds in parts]


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ArithmeticError(f"{value} is no finite number")
    return value


def _combined(
    combine: Callable[[float, float], float], left: Callable[[Values], float], right: Callable[[Values], float]
) -> Callable[[Values], float]:
    return lambda values: combine(left(values), right(values))


_SIDES, _RATIO = ("shared", "per_graph"), "ratio"
_BASELINE = "baseline"
_PARTS = ("p50", "low", "high", "mad", "p90", "launches", "samples")
_FIGURES = {f"{key}_{unit.lower()}": key for key, unit in KPI_UNITS.items()}
_CHANGES = ("change", "change_low", "change_high")  # parts of a figure that only a baseline gives it
_VERDICTS = {verdict.lower(): verdict for verdict in Verdict}
_LIKENESS = {"psnr_db": tuple(_VERDICTS), "psnr_truth_db": ()}  # with the parts that each has
_Place = tuple[str, str, str]  # device, task, and the name's rest


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """An expression with its names, each as the task that it is of, if it is of one, and the rest."""

    expression: Expression
    names: dict[str, tuple[str | None, str]]


def read_condition(text: str, tasks: Iterable[str], *, has_baseline: bool = False) -> Criterion:
    """Read a condition on the figures of a run of these tasks.

    Raises:
        UserError: it is no expression, or names nothing, or a baseline where there is none.
        UnknownNameError: it names what no run has, or another task; the message lists the known ones.
    """
    expression, known = read_expression(text), tuple(tasks)
    if not expression.names:
        raise UserError(f"'{text}' names no figure", hint="as 'shared.end_to_end_ms.p50 > 200'; docs/commands.md has the names")
    names = {name: _read_name(name, known) for name in expression.names}
    for name in expression.alone:
        if not _is_verdict(names[name][1]):
            hint = f"as '{name} > 200'; a verdict stands alone, as 'shared.end_to_end_ms.worse'"
            raise UserError(f"'{name}' is no condition alone: expected a comparison", hint=hint)
    if not has_baseline and any(_needs_baseline(rest) for _, rest in names.values()):
        raise UserError(f"'{text}' names a baseline, and there is none", hint="--baseline latest, or the id of an earlier run")
    return Criterion(expression=expression, names=names)


def where_met(
    condition: Criterion, rows: Sequence[KpiRow], quality: Sequence[Quality], baseline: Baseline | None = None
) -> tuple[str, ...]:
    """Say where a condition holds, on each device and for each task that it is of; a figure that is missing counts as if it did.

    A task to which a figure does not apply, as the VAE encoder's without an input image, or which the baseline lacks, is passed
    over, unless all are.
    """
    figures = dict([*_of_rows(rows), *_of_quality(quality), *(_of_baseline(baseline) if baseline else ())])
    exempt, new_tasks = {place for row in rows for place in _exempt(row)}, baseline.only_now if baseline else ()
    is_of_each = any(task is None for task, _ in condition.names.values())
    met, looked_at = [], 0
    for device in dict.fromkeys(row.device.address for row in rows):
        for task in dict.fromkeys(row.task for row in rows if row.device.address == device) if is_of_each else [""]:
            places = {name: (device, own or task, rest) for name, (own, rest) in condition.names.items()}
            is_new = any(own in new_tasks and _needs_baseline(name) for name, (_, own, _) in places.items())
            if exempt.isdisjoint(places.values()) and not is_new:
                looked_at += 1
                fault = _fault(condition, places, figures)
                met += (
                    [f"{condition.expression.text}: on {device}{', ' if task else ''}{task}{fault}"] if fault is not None else []
                )
    return tuple(met) if looked_at else (f"{condition.expression.text}: there is no figure",)


def _fault(condition: Criterion, places: Mapping[str, _Place], figures: Mapping[_Place, float]) -> str | None:
    """Return what is to be said where the condition holds, or where it cannot be told; None where it does not hold."""
    values = {name: figures.get(place, math.nan) for name, place in places.items()}
    missing = [name for name, value in values.items() if not math.isfinite(value)]
    if missing:
        return f": there is no figure {', '.join(missing)}"
    told = ", ".join(_shown(name, places[name], figures) for name in values)
    try:
        return f": {told}" if condition.expression.holds(values) else None
    except ArithmeticError:
        return f": it is no number, as it divides by 0 or is too large; {told}"


def _shown(name: str, place: _Place, figures: Mapping[_Place, float]) -> str:
    """Return a figure in words: of a verdict, by what it was reached."""
    device, task, rest = place
    figure, _, part = rest.rpartition(".")
    change, low, high = (figures.get((device, task, f"{figure}.{end}"), math.nan) for end in _CHANGES)
    if part in _VERDICTS and math.isfinite(change):
        interval = f" ({low:.3f} to {high:.3f})" if math.isfinite(low) and math.isfinite(high) else ""
        return f"{figure} is now / before {change:.3f}{interval}"
    return f"{name} is {figures[place]:.6g}"


def _read_name(name: str, tasks: Sequence[str]) -> tuple[str | None, str]:
    """Return the task of a name, and its rest as figures are filed."""
    sides, task, words = (*_SIDES, _RATIO, _BASELINE), None, name.split(".")
    if words[0] not in sides:
        task = _known("task or side", words.pop(0), (*tasks, *sides))
    rest = ".".join(_read_rest(words, sides, (*_PARTS, *_CHANGES, *_VERDICTS)))
    if words:
        raise UnknownNameError("figure", name, [".".join(filter(None, (task, rest)))])
    return task, rest


def _read_rest(words: list[str], sides: Iterable[str], parts: Sequence[str]) -> list[str]:
    """Take from the words of a name what is known of it, from its side on; likeness needs no part."""
    side = _taken("side", words, sides)
    if side == _RATIO:
        return [side, _taken("figure", words, _FIGURES.values())]
    if side == _BASELINE:
        is_count = bool(words) and words[0] in _VERDICTS
        return [side, words.pop(0)] if is_count else [side, *_read_rest(words, (*_SIDES, _RATIO, *_VERDICTS), _PARTS)]
    figure = _taken("figure", words, (*_FIGURES, *_LIKENESS))
    if figure in _LIKENESS:
        has_part = bool(words) and words[0] in parts and words[0] in _LIKENESS[figure]
        return [side, figure, *([words.pop(0)] if has_part else [])]
    return [side, figure, _taken("part of a figure", words, parts)]


def _is_verdict(rest: str) -> bool:
    """Say whether a name is that of a figure's verdict, which holds or does not; a number of verdicts is none."""
    return rest.rpartition(".")[2] in _VERDICTS and not rest.startswith(f"{_BASELINE}.")


def _needs_baseline(name: str) -> bool:
    return name.startswith(f"{_BASELINE}.") or name.rpartition(".")[2] in (*_CHANGES, *_VERDICTS)


def _taken(kind: str, words: list[str], known: Iterable[str]) -> str:
    return _known(kind, words.pop(0) if words else "", known)


def _known(kind: str, word: str, known: Iterable[str]) -> str:
    if word not in known:
        raise UnknownNameError(kind, word, known)
    return word


def _of_rows(rows: Sequence[KpiRow]) -> Iterator[tuple[_Place, float]]:
    for row in rows:
        device, task, name = row.device.address, row.task, f"{row.key}_{row.unit.lower()}"
        yield (device, task, f"{_RATIO}.{row.key}"), math.nan if row.ratio is None else row.ratio
        for side, cell in zip(_SIDES, (row.shared, row.per_graph), strict=True):
            if isinstance(cell, Figure):
                sizes = {"p50": cell.value, "low": cell.low, "high": cell.high, "mad": cell.mad, "p90": cell.p90}
                for part, size in sizes.items():
                    yield (device, task, f"{side}.{name}.{part}"), math.nan if size is None else convert(size, row.unit)
                for part, count in (("launches", cell.launches), ("samples", cell.samples)):
                    yield (device, task, f"{side}.{name}.{part}"), float(count)


def _of_quality(quality: Sequence[Quality]) -> Iterator[tuple[_Place, float]]:
    for row in quality:
        cells = {
            "shared.psnr_db": row.shared_reference,
            "per_graph.psnr_db": row.per_graph_reference,
            "shared.psnr_truth_db": row.shared_truth,
            "per_graph.psnr_truth_db": row.per_graph_truth,
        }
        for name, value in cells.items():
            yield (row.device.address, row.task, name), value if isinstance(value, float) else math.nan


def _of_baseline(baseline: Baseline) -> Iterator[tuple[_Place, float]]:
    """Yield the baseline's own figures, what the run's are of them, and how many got worse, better, or neither."""
    for (device, task, name), value in (*_of_rows(baseline.kpis), *_of_quality(baseline.quality)):
        yield (device, task, f"{_BASELINE}.{name}"), value
    for figure in baseline.figures:
        name = f"{'shared' if figure.variant is Variant.SHARED else 'per_graph'}.{figure.key}_{(figure.unit or 'db').lower()}"
        is_whole = figure.before is not None and figure.now is not None
        for part, verdict in _VERDICTS.items():
            yield (figure.device, figure.task, f"{name}.{part}"), float(figure.verdict is verdict) if is_whole else math.nan
        for part, ratio in zip(_CHANGES, (figure.ratio, figure.low, figure.high), strict=True):
            yield (figure.device, figure.task, f"{name}.{part}"), math.nan if ratio is None else ratio
    counts = Counter((figure.device, figure.task, figure.verdict) for figure in baseline.figures)
    for device, task in dict.fromkeys((figure.device, figure.task) for figure in baseline.figures):
        for name, verdict in _VERDICTS.items():
            yield (device, task, f"{_BASELINE}.{name}"), float(counts[device, task, verdict])


def _exempt(row: KpiRow) -> Iterator[_Place]:
    """Yield the figures of a row that its task cannot have."""
    device, task = row.device.address, row.task
    for side, cell in zip(_SIDES, (row.shared, row.per_graph), strict=True):
        if isinstance(cell, str) and cell in NOT_APPLICABLE:
            parts = [f"{side}.{row.key}_{row.unit.lower()}.{part}" for part in (*_PARTS, *_CHANGES, *_VERDICTS)]
            for name in (*parts, f"{_RATIO}.{row.key}"):
                yield device, task, name
                yield device, task, f"{_BASELINE}.{name}"
