"""Parser and evaluator of pass/fail conditions (`--fail-if`) on a run's metrics, such as `shared.end_to_end_ms.p50 > 200`."""

import ast
import itertools
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from quadbench.errors import UnknownNameError, UserError, quote
from quadbench.report.formatting import convert
from quadbench.report.kpi import KPI_UNITS, NOT_APPLICABLE, Figure, KpiRow
from quadbench.report.scores import Quality

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
_PARTS = ("p50", "low", "high", "mad", "p90", "launches", "samples")
_FIGURES = {f"{key}_{unit.lower()}": key for key, unit in KPI_UNITS.items()}
_LIKENESS = ("psnr_db", "psnr_truth_db")  # figures without parts
_Place = tuple[str, str, str]  # device, task, rest of the figure's name


@dataclass(frozen=True, kw_only=True)
class Expression:
    """A parsed condition as a Python syntax tree whose names are metric names."""

    text: str
    names: tuple[str, ...]
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
        for part in _parts(tree):
            _require_comparison(text, part)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(text, "comparisons, joined by 'and' or 'or'", text) from error
    return Expression(text=text, names=tuple(dict.fromkeys(names)), tree=tree)


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
    """Raise a UserError unless the tree `part` compares two expressions of names, numbers and `+ - * /`."""
    match part:
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


def read_condition(text: str, tasks: Iterable[str]) -> Criterion:
    """Parse the text of a `--fail-if` condition to a `Criterion`. `tasks` are the task names that its metric names may contain.

    Raises:
        UserError: the text is not a condition, or names no metric.
        UnknownNameError: the text names an unknown metric or task; the message lists the known ones.
    """
    expression, known = read_expression(text), tuple(tasks)
    if not expression.names:
        hint = "write, for example, 'shared.end_to_end_ms.p50 > 200'; docs/commands.md lists the names"
        raise UserError(f"'{text}' does not name a figure", hint=hint)
    return Criterion(expression=expression, names={name: _read_name(name, known) for name in expression.names})


def met_places(condition: Criterion, rows: Sequence[KpiRow], quality: Sequence[Quality]) -> tuple[str, ...]:
    """Return a message for each device and task where a `--fail-if` condition is true or cannot be evaluated, or an empty tuple.
    If all metric names contain a task, check each device once. Skip tasks to which a metric does not apply. If every task is
    skipped, the only message says that there is no value.
    """
    figures = dict([*_of_rows(rows), *_of_quality(quality)])
    exempt = {place for row in rows for place in _exempt(row)}
    is_of_each = any(task is None for task, _ in condition.names.values())
    met, looked_at = [], 0
    for device in dict.fromkeys(row.device.address for row in rows):
        for task in dict.fromkeys(row.task for row in rows if row.device.address == device) if is_of_each else [""]:
            places = {name: (device, own or task, rest) for name, (own, rest) in condition.names.items()}
            if exempt.isdisjoint(places.values()):
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
    values_text = ", ".join(f"{name} is {value:.6g}" for name, value in values.items())
    try:
        return f": {values_text}" if condition.expression.holds(values) else None
    except ArithmeticError:
        return f": the result is not a number (division by 0, or too large); {values_text}"


def _read_name(name: str, tasks: Sequence[str]) -> tuple[str | None, str]:
    """Check and split a metric's name to (task or None, rest): `edit.ratio.switch` gives ("edit", "ratio.switch")."""
    sides, task, words = (*_SIDES, _RATIO), None, name.split(".")
    if words[0] not in sides:
        task = _known("task or side", words.pop(0), (*tasks, *sides))
    rest = ".".join(_read_rest(words))
    if words:
        raise UnknownNameError("figure", name, [".".join(filter(None, (task, rest)))])
    return task, rest


def _read_rest(words: list[str]) -> list[str]:
    """Remove the words of a metric, such as `ratio` and `switch`, from `words` and return them. Raise a UserError if unknown."""
    side = _taken("side", words, (*_SIDES, _RATIO))
    if side == _RATIO:
        return [side, _taken("figure", words, _FIGURES.values())]
    figure = _taken("figure", words, (*_FIGURES, *_LIKENESS))
    return [side, figure] if figure in _LIKENESS else [side, figure, _taken("part of a figure", words, _PARTS)]


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


def _exempt(row: KpiRow) -> Iterator[_Place]:
    """Yield (device address, task, metric name) for each metric of a KPI row that does not apply to the row's task. For example,
    `shared.vae_encoder_ms.p50` does not apply to text-to-image. A `--fail-if` condition that uses the metric skips the task.
    """
    device, task = row.device.address, row.task
    for side, cell in zip(_SIDES, (row.shared, row.per_graph), strict=True):
        if isinstance(cell, str) and cell in NOT_APPLICABLE:
            for part in _PARTS:
                yield device, task, f"{side}.{row.key}_{row.unit.lower()}.{part}"
            yield device, task, f"{_RATIO}.{row.key}"
