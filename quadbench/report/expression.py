"""Expression: a text as `a.b > 1.2 * c.d and e.f < 3` -> the names in it, and whether it holds for values of theirs. Pure.

expression = comparisons joined by `and`, which binds more, and `or`
comparison = sum < sum, also <= > >= == !=; or a name alone, which holds where it is not 0
sum = products with + and -; product = numbers, names and (sums) with * and /
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quadbench.errors import UserError, shown

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
