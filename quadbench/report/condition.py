"""Parser and evaluator of pass/fail conditions (`--fail-if`) on a run's metrics, such as `shared.end_to_end_ms.p50 > 200`."""

import ast
import itertools
import math
import operator
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from quadbench.artifacts import Variant
from quadbench.errors import UnknownNameError, UserError, quote
from quadbench.report.baseline import Baseline
from quadbench.report.formatting import convert
from quadbench.report.kpi import KPI_UNITS, NOT_APPLICABLE, Figure, KpiRow
from quadbench.report.scores import Quality
from quadbench.statistics import Verdict

_MAX_LENGTH = 1000  # characters
_NAME = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z0-9][a-z0-9_-]*)+")
_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip

_SIDES, _RATIO = ("shared", "per_graph"), "ratio"
_BASELINE = "baseline"
_PARTS = ("p50", "low", "high", "mad", "p90", "launches", "samples")
_FIGURES = {f"{key}_{unit.lower()}": key for key, unit in KPI_UNITS.items()}
_CHANGES = ("change", "change_low", "change_high")  # parts of a figure that need a baseline
_VERDICTS = {verdict.lower(): verdict for verdict in Verdict}
_LIKENESS = {"psnr_db": tuple(_VERDICTS), "psnr_truth_db": ()}  # PSNR figures and their optional parts
_Place = tuple[str, str, str]  # device, task, rest of the figure's name


@dataclass(frozen=True, kw_only=True)
class Expression:
    """A parsed condition as a Python syntax tree whose names are metric names. `alone` lists the metric names without a
    comparison, such as `shared.end_to_end_ms.worse`. The value of a metric in `alone` must be 1 (true) or 0 (false).
    """

    text: str
    names: tuple[str, ...]
    alone: tuple[str, ...]
    tree: ast.expr

    def holds(self, values: Mapping[str, float]) -> bool:
        """Return whether the condition holds. `values` maps metric name to number. Raise ArithmeticError for NaN or infinity."""
        return bool(_value(self.tree, values))


def read_expression(text: str) -> Expression:
    """Parse text with comparisons, joined by `and` or `or`, to an `Expression`. Python's parser reads it; nothing is executed."""
    if len(text) > _MAX_LENGTH:
        raise UserError(f"found a condition of {len(text)} characters; expected at most {_MAX_LENGTH}")
    other = [word for word in re.findall(r"[^\W\d]\w*", _NAME.sub(" ", text)) if word not in ("and", "or")]
    if other:
        raise _refused(text, "a name such as shared.end_to_end_ms.p50, a number or an operator", other[0])
    names = _NAME.findall(text)
    try:
        tree = _parsed(text, names)
        parts = list(_parts(tree))
        for part in parts:
            _require_comparison(text, part)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(text, "comparisons, joined by 'and' or 'or'", text) from error
    alone = tuple(part.id for part in parts if isinstance(part, ast.Name))
    return Expression(text=text, names=tuple(dict.fromkeys(names)), alone=alone, tree=tree)


def _parsed(text: str, names: Sequence[str]) -> ast.expr:
    """Parse a condition to a Python syntax tree in which each metric name, with its dots and hyphens, is one `ast.Name`."""
    numbers = itertools.count()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # for `1and`, which parses as intended
        tree = ast.parse(_NAME.sub(lambda _: f"name{next(numbers)}", text).strip(), mode="eval").body
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = names[int(node.id.removeprefix("name"))]
    return tree


def _parts(tree: ast.expr) -> Iterator[ast.expr]:
    """Yield the operands that `and` and `or` join in a condition's syntax tree. Without either word, yield the whole tree."""
    if isinstance(tree, ast.BoolOp):
        for part in tree.values:
            yield from _parts(part)
    else:
        yield tree


def _require_comparison(text: str, part: ast.expr) -> None:
    """Raise a UserError unless the tree `part` is a metric name, or compares two expressions of names, numbers and `+ - * /`."""
    match part:
        case ast.Name():
            return
        case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in _COMPARISONS:
            sums = (*ast.walk(left), *ast.walk(right))
        case _:
            raise _refused(text, "a comparison such as < or >=", ast.unparse(part))
    for node in sums:
        is_number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
        is_sum = isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC
        if not (is_number or is_sum or isinstance(node, ast.Name | ast.operator | ast.Load)):
            raise _refused(text, "names and numbers, combined with + - * /", ast.unparse(node))


def _refused(text: str, expected: str, instead: str) -> UserError:
    return UserError(f"'{text}' is not a condition: expected {expected}, found {quote(instead) if instead else 'nothing'}")


def _value(node: ast.expr, values: Mapping[str, float]) -> float:
    match node:
        case ast.BoolOp(op=joined, values=parts):
            each = [_value(part, values) for part in parts]  # evaluates every part, so that an undefined one raises
            return all(each) if isinstance(joined, ast.And) else any(each)
        case ast.Compare(left=left, ops=[sign], comparators=[right]):
            sides = _value(left, values), _value(right, values)
            if not all(map(math.isfinite, sides)):
                raise ArithmeticError(f"{sides} are not finite numbers")
            return _COMPARISONS[type(sign)](*sides)
        case ast.BinOp(left=left, op=sign, right=right):
            return _ARITHMETIC[type(sign)](_value(left, values), _value(right, values))
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=int() | float() as number):
            return float(number)
    raise TypeError(f"{ast.dump(node)} was not rejected")


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A pass/fail condition. `names` maps a metric name, such as `edit.ratio.switch`, to (task or None, text after the task)."""

    expression: Expression
    names: dict[str, tuple[str | None, str]]


def read_condition(text: str, tasks: Iterable[str], *, has_baseline: bool = False) -> Criterion:
    """Parse the text of a `--fail-if` condition to a `Criterion`. `tasks` are the task names that its metric names may contain.

    Raises:
        UserError: the text is not a condition, names no metric, or needs a baseline although there is none.
        UnknownNameError: the text names an unknown metric or task; the message lists the known ones.
    """
    expression, known = read_expression(text), tuple(tasks)
    if not expression.names:
        hint = "write, for example, 'shared.end_to_end_ms.p50 > 200'; docs/commands.md lists the names"
        raise UserError(f"'{text}' does not name a figure", hint=hint)
    names = {name: _read_name(name, known) for name in expression.names}
    for name in expression.alone:
        rest = names[name][1]
        if rest.rpartition(".")[2] not in _VERDICTS or rest.startswith(f"{_BASELINE}."):  # `baseline.worse` is a count
            hint = f"write '{name} > 200'; only a verdict needs no comparison, such as 'shared.end_to_end_ms.worse'"
            raise UserError(f"'{name}' alone is not a condition: expected a comparison", hint=hint)
    if not has_baseline and any(_needs_baseline(rest) for _, rest in names.values()):
        hint = "add --baseline latest, or --baseline with the id of an earlier run"
        raise UserError(f"'{text}' needs a baseline, but none was given", hint=hint)
    return Criterion(expression=expression, names=names)


def met_places(
    condition: Criterion, rows: Sequence[KpiRow], quality: Sequence[Quality], baseline: Baseline | None = None
) -> tuple[str, ...]:
    """Return a message for each device and task where a `--fail-if` condition is true or cannot be evaluated, or an empty tuple.
    If all metric names contain a task, check each device once. Skip tasks to which a metric does not apply, and tasks missing
    from the baseline if a metric needs a baseline. If every task is skipped, the only message says that there is no value.
    """
    figures = dict([*_of_rows(rows), *_of_quality(quality), *(_of_baseline(baseline) if baseline else ())])
    exempt, new_tasks = {place for row in rows for place in _exempt(row)}, baseline.only_now if baseline else ()
    is_of_each = any(task is None for task, _ in condition.names.values())
    met, looked_at = [], 0
    for device in dict.fromkeys(row.device.address for row in rows):
        for task in dict.fromkeys(row.task for row in rows if row.device.address == device) if is_of_each else [""]:
            places = {name: (device, own or task, rest) for name, (own, rest) in condition.names.items()}
            is_new = any(own in new_tasks and _needs_baseline(rest) for _, own, rest in places.values())
            if exempt.isdisjoint(places.values()) and not is_new:
                looked_at += 1
                fault = _fault(condition, places, figures)
                if fault is not None:
                    met.append(f"{condition.expression.text}: on {device}{', ' if task else ''}{task}{fault}")
    return tuple(met) if looked_at else (f"{condition.expression.text}: there is no figure",)


def _fault(condition: Criterion, places: Mapping[str, _Place], figures: Mapping[_Place, float]) -> str | None:
    """Evaluate a condition. Return None if it is false, else text for a message: metric values, or why there is no result."""
    values = {name: figures.get(place, math.nan) for name, place in places.items()}
    missing = [name for name, value in values.items() if not math.isfinite(value)]
    if missing:
        return f": there is no figure {', '.join(missing)}"
    values_text = ", ".join(_shown(name, places[name], figures) for name in values)
    try:
        return f": {values_text}" if condition.expression.holds(values) else None
    except ArithmeticError:
        return f": the result is not a number (division by 0, or too large); {values_text}"


def _shown(name: str, place: _Place, figures: Mapping[_Place, float]) -> str:
    """Format a metric's name and value, such as `ratio.switch is 2.5`. For a verdict, show current run / baseline if known."""
    device, task, rest = place
    figure, _, part = rest.rpartition(".")
    change, low, high = (figures.get((device, task, f"{figure}.{end}"), math.nan) for end in _CHANGES)
    if part in _VERDICTS and math.isfinite(change):
        interval = f" ({low:.3f} to {high:.3f})" if math.isfinite(low) and math.isfinite(high) else ""
        return f"{figure} is now / before {change:.3f}{interval}"
    return f"{name} is {figures[place]:.6g}"


def _read_name(name: str, tasks: Sequence[str]) -> tuple[str | None, str]:
    """Check and split a metric's name to (task or None, rest): `edit.ratio.switch` gives ("edit", "ratio.switch")."""
    sides, task, words = (*_SIDES, _RATIO, _BASELINE), None, name.split(".")
    if words[0] not in sides:
        task = _known("task or side", words.pop(0), (*tasks, *sides))
    rest = ".".join(_read_rest(words, sides, (*_PARTS, *_CHANGES, *_VERDICTS)))
    if words:
        raise UnknownNameError("figure", name, [".".join(filter(None, (task, rest)))])
    return task, rest


def _read_rest(words: list[str], sides: Iterable[str], parts: Sequence[str]) -> list[str]:
    """Remove the words of a metric, such as `ratio` and `switch`, from `words` and return them. Raise a UserError if unknown."""
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
        for side, (name, against) in itertools.product(_SIDES, (("psnr_db", "reference"), ("psnr_truth_db", "truth"))):
            value = getattr(row, f"{side}_{against}")
            yield (row.device.address, row.task, f"{side}.{name}"), value if isinstance(value, float) else math.nan


def _of_baseline(baseline: Baseline) -> Iterator[tuple[_Place, float]]:
    """Yield ((device, task, metric name), value): baseline values, ratios now / baseline, verdicts as 1 or 0, verdict counts."""
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
    """Yield (device address, task, metric name) for each metric of a KPI row that does not apply to the row's task. For example,
    `shared.vae_encoder_ms.p50` does not apply to text-to-image. A `--fail-if` condition that uses the metric skips the task.
    """
    device, task = row.device.address, row.task
    for side, cell in zip(_SIDES, (row.shared, row.per_graph), strict=True):
        if isinstance(cell, str) and cell in NOT_APPLICABLE:
            parts = [f"{side}.{row.key}_{row.unit.lower()}.{part}" for part in (*_PARTS, *_CHANGES, *_VERDICTS)]
            for name in (*parts, f"{_RATIO}.{row.key}"):
                yield device, task, name
                yield device, task, f"{_BASELINE}.{name}"
