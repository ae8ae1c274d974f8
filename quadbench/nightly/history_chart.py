"""History chart: a figure of a case on a device over its nights -> SVG: levels by segments, what was ruled, and the yardstick."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import ceil, floor, log10
from statistics import median

from quadbench.artifacts.night import Acknowledgement, Measurement, Point, RulingKind
from quadbench.nightly.history import CaseHistory, FigureHistory, Segment
from quadbench.nightly.series import FigureName, is_exact, is_sound, name_of, scaled, unscaled
from quadbench.report.chart import nice_ticks, rule, svg, text
from quadbench.report.kpi import KPI_UNITS
from quadbench.report.night_chart import COLOURS
from quadbench.report.night_words import figure_name, words
from quadbench.report.units import convert

MOST_NIGHTS = 400  # that a chart has, the latest
_FEW_NIGHTS = 90  # whose dots are drawn larger
_WIDTH, _LEFT, _RIGHT = 560, 62, 14
_UPPER, _LOWER = (52, 172), (210, 262)  # where the case and the yardstick lie, top to bottom
_WORDS = 34  # below these, and below the dates: what was acknowledged
_TICKS = 3  # about so many values at a low axis: at least one, and no more than it has room for
_APART = 16.0  # of the numbers above changes
_ROOM = 160  # of the word beside the bar of what was acknowledged
_PLAIN, _RULE, _FAINT, _PAPER, _INK = "#1d5fa6", "#8d9199", "#d9dce1", "#fdfdfc", "#1c1e21"


def history_chart(figure: FigureHistory, history: CaseHistory, nights: Sequence[Measurement]) -> str | None:
    """Draw a figure over its latest nights; None where fewer than two have it as the last one does."""
    name = figure.task, figure.key
    points = [
        (night, point) for night in nights for point in night.points if name_of(point) == name and scaled(point) is not None
    ]
    alike = [one for one in points if (one[1].ratio is None) is (points[-1][1].ratio is None)][-MOST_NIGHTS:]
    if len(alike) < 2:
        return None
    plot = _Plot(figure=figure, history=history, nights=tuple(night for night, _ in alike), points=tuple(p for _, p in alike))
    return plot.drawn()


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """The height of values between two ends; what lies beyond is drawn at the edge."""

    low: float
    high: float
    span: tuple[int, int]  # top and bottom

    @classmethod
    def of(cls, values: Sequence[float], levels: Iterable[float], span: tuple[int, int]) -> "_Scale":
        """Return a scale with room for levels, and for values that are no more than twice and no less than half of the median.

        It is at least 4 % high: noise shall not look like a change.
        """
        middle = median(values)
        shown = [middle, *levels, *(value for value in values if middle / 2 <= value <= middle * 2)]
        room = max(0.15 * (max(shown) - min(shown)), 0.02 * abs(max(shown))) or 1.0
        return cls(low=min(shown) - room, high=max(shown) + room, span=span)

    def height(self, value: float) -> float:
        """Return where a value lies."""
        top, bottom = self.span
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return bottom - share * (bottom - top)

    def axis(self, title: str, above: float = 8) -> Iterator[str]:
        """Draw the lines of round values, and the title so far above them."""
        yield text(_LEFT, self.span[0] - above, title)
        step = nice_ticks(self.high - self.low, count=max(_TICKS, (self.span[1] - self.span[0]) // 30))[1]
        digits = max(0, -floor(log10(step)))
        for index in range(ceil(self.low / step), floor(self.high / step) + 1):
            y = self.height(index * step)
            yield rule("grid", (_LEFT, y), (_WIDTH - _RIGHT, y), _FAINT)
            yield text(_LEFT - 8, y + 4, f"{index * step:,.{digits}f}", anchor="end")


@dataclass(frozen=True, kw_only=True)
class _Plot:
    """A figure over nights that all have it on one scale: as a ratio to the yardstick's, or as a value."""

    figure: FigureHistory
    history: CaseHistory
    nights: tuple[Measurement, ...]
    points: tuple[Point, ...]

    def drawn(self) -> str:
        """Return the picture."""
        figure, unit = figure_name(self.figure.key, self.figure.task), KPI_UNITS.get(self.figure.key)
        title = f"{figure}: case / yardstick" if self._is_ratio else f"{figure}, {unit}" if unit else figure
        yardsticks = [point.yardstick for point in self.points if point.yardstick is not None]
        has_yardstick = len(yardsticks) == len(self.points)
        bottom = (_LOWER if has_yardstick else _UPPER)[1]
        parts = [*self._environments(bottom), *self._scale.axis(title, above=_UPPER[0] - 12)]
        parts += [*self._segments(bottom), *self._dots()]
        if has_yardstick:
            parts += self._yardstick([self._shown(one, is_ratio=False) for one in yardsticks], unit)
        for index, anchor in ((0, "start"), (-1, "end")):
            parts.append(text(self._xs[index], bottom + 18, f"{self.nights[index].measured_at:%Y-%m-%d}", anchor=anchor))
        told = f"{figure} of {words(self.history.case)} on {words(self.history.address)} over {len(self.nights)} nights"
        accepted = list(self._acknowledged(bottom + _WORDS))
        return svg(_WIDTH, bottom + (_WORDS + 10 if accepted else 24), told, [*parts, *accepted])

    @property
    def _is_ratio(self) -> bool:
        return self.points[-1].ratio is not None

    @cached_property
    def _xs(self) -> list[float]:
        step = (_WIDTH - _LEFT - _RIGHT) / (len(self.nights) - 1)
        return [_LEFT + number * step for number in range(len(self.nights))]

    @cached_property
    def _ys(self) -> list[float]:
        places = [unscaled(scaled(point) or 0.0, self.figure.key) for point in self.points]
        return [self._shown(place, is_ratio=self._is_ratio) for place in places]

    @cached_property
    def _scale(self) -> _Scale:
        levels = [self._shown(segment.level, is_ratio=self._is_ratio) for _, segment, _ in self._stretches]
        return _Scale.of(self._ys, levels, _UPPER)

    @cached_property
    def _stretches(self) -> list[tuple[int, Segment, tuple[int, int]]]:
        """Return the segments that are shown, each with its number and its first and last night here."""
        places = {night.night: index for index, night in enumerate(self.nights)}
        return [
            (number, segment, (places.get(segment.first, 0), places[segment.last]))
            for number, segment in enumerate(self.figure.segments, start=1)
            if segment.last in places and segment.is_ratio is self._is_ratio
        ]

    def _shown(self, value: float, *, is_ratio: bool) -> float:
        """Return a value in the unit in which it is shown."""
        unit = KPI_UNITS.get(self.figure.key)
        return value if unit is None or is_ratio else convert(value, unit)

    def _before(self, index: int) -> float:
        """Return the place between a night and the one before it."""
        return self._xs[0] - 4 if index == 0 else (self._xs[index - 1] + self._xs[index]) / 2

    def _environments(self, bottom: int) -> Iterator[str]:
        """Shade every second environment."""
        index = 0
        for count, (_, alike) in enumerate(groupby(self.nights, key=lambda night: sorted(night.environment.items()))):
            first, index = index, index + len(list(alike))
            left, right = self._before(first), self._before(index) if index < len(self.nights) else self._xs[-1] + 4
            if count % 2:
                size = f'width="{right - left:.1f}" height="{bottom - _UPPER[0]}"'
                yield f'<rect class="surroundings" x="{left:.1f}" y="{_UPPER[0]}" {size} fill="{_FAINT}" fill-opacity="0.45"/>'

    def _segments(self, bottom: int) -> Iterator[str]:
        """Draw each level, and a numbered line where it begins."""
        free = 0.0
        for place, segment, (first, last) in self._stretches:
            y = self._scale.height(self._shown(segment.level, is_ratio=self._is_ratio))
            left, right = self._before(first), self._before(last + 1) if last + 1 < len(self._xs) else self._xs[-1] + 4
            yield rule("level", (left, y), (right, y), _INK, ' stroke-width="1.5"')
            if place > 1 and segment.first == self.nights[first].night:
                yield rule("edge", (left, _UPPER[0] - 6), (left, bottom), _RULE, ' stroke-dasharray="3 3"')
                if left >= free:
                    yield text(left, _UPPER[0] - 11, str(place), anchor="middle", css_class="group", colour=_INK)
                    free = left + _APART

    def _dots(self) -> Iterator[str]:
        kinds, radius = self._kinds(), 2.5 if len(self.nights) <= _FEW_NIGHTS else 1.5
        for night, x, y in zip(self.nights, self._xs, self._ys, strict=True):
            place = f'cx="{x:.1f}" cy="{self._scale.height(y):.1f}"'
            if kind := kinds.get(night.night):
                colour = COLOURS.get(kind, _PLAIN)
                yield f'<circle class="told {kind.lower()}" {place} r="4" fill="{colour}"><title>{kind}</title></circle>'
            elif is_sound(night) or is_exact(self.figure.key):
                yield f'<circle class="shared" {place} r="{radius}" fill="{_PLAIN}"/>'
            else:
                yield f'<circle class="doubtful" {place} r="2.5" fill="{_PAPER}" stroke="{_PLAIN}"/>'

    def _kinds(self) -> dict[str, RulingKind]:
        """Return the rulings on the figure, or on all of them, by night."""
        about: tuple[FigureName | tuple[None, None], ...] = ((None, None), (self.figure.task, self.figure.key))
        told = sorted((one for one in self.history.rulings if (one.task, one.key) in about), key=lambda one: one.key is not None)
        return {ruling.night: ruling.kind for ruling in told}

    def _acknowledged(self, y: float) -> Iterator[str]:
        """Draw a bar at a height below the nights that a person's word is about."""
        for word in filter(self._is_about, self.history.acknowledged):
            xs = [x for night, x in zip(self.nights, self._xs, strict=True) if _is_covered(night, word)]
            if xs:
                ends = (xs[0] - 3, y), (xs[-1] + 3, y)
                yield rule("word", *ends, COLOURS[RulingKind.IMPROVEMENT], ' stroke-width="4"')
                if xs[0] > _ROOM:
                    yield text(xs[0] - 10, y + 4, "acknowledged", anchor="end")

    def _is_about(self, word: Acknowledgement) -> bool:
        return word.task in (None, self.figure.task) and word.key in (None, self.figure.key)

    def _yardstick(self, values: Sequence[float], unit: str | None) -> Iterator[str]:
        scale = _Scale.of(values, (), _LOWER)
        yield from scale.axis(f"the yardstick itself, {unit}" if unit else "the yardstick itself")
        spots = " ".join(f"{x:.1f},{scale.height(value):.1f}" for x, value in zip(self._xs, values, strict=True))
        yield f'<polyline class="shared" fill="none" stroke="{_PLAIN}" stroke-width="1" points="{spots}"/>'


def _is_covered(night: Measurement, word: Acknowledgement) -> bool:
    return word.since <= night.measured_at < word.until
