"""SVG chart of one metric of a nightly case: values, segment medians, verdicts, accepted changes, reference bundle's values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from quadbench.artifacts.night_record import Measurement, Point, RulingKind
from quadbench.nightly.history import CaseHistory, FigureHistory, Segment
from quadbench.nightly.series import FigureName, from_scale, is_sound, name_of, to_scale
from quadbench.report.chart import FAINT, Plot, rule, svg, text
from quadbench.report.night import figure_name, in_unit, tidy
from quadbench.report.night_formats import COLOURS, LOWER, PLAIN, RULE, UPPER, WIDTH, axis, dates, line, panel, plot_of, titles_of
from quadbench.report.versus import EXACT

MAX_NIGHTS = 400  # the latest nights that a chart shows
_FEW_NIGHTS = 90  # up to this many nights, dots are larger
_WORDS = 34  # pixels from the panels down to the bars of acknowledged nights
_APART = 16.0  # least distance of the numbers above changes
_ROOM = 160  # width of the label beside such a bar
_PAPER, _INK = "#fdfdfc", "#1c1e21"


def history_chart(figure: FigureHistory, history: CaseHistory, nights: Sequence[Measurement]) -> str | None:
    """Draw a metric's latest values as SVG. Return None if fewer than two share the newest value's unit (ratio or absolute)."""
    name = figure.task, figure.key
    points = [
        (night, point) for night in nights for point in night.points if name_of(point) == name and to_scale(point) is not None
    ]
    alike = [one for one in points if (one[1].ratio is None) is (points[-1][1].ratio is None)][-MAX_NIGHTS:]
    if len(alike) < 2:
        return None
    plot = _Plot(figure=figure, history=history, nights=tuple(night for night, _ in alike), points=tuple(p for _, p in alike))
    return plot.drawn()


@dataclass(frozen=True, kw_only=True)
class _Plot:
    """An SVG chart of one metric over nights. Its points are all ratios to the reference bundle, or all absolute values."""

    figure: FigureHistory
    history: CaseHistory
    nights: tuple[Measurement, ...]
    points: tuple[Point, ...]

    def drawn(self) -> str:
        figure, key = figure_name(self.figure.key, self.figure.task), self.figure.key
        of_case, of_yardstick = titles_of(figure, key, is_of_ratio=self._is_ratio)
        yardsticks = [point.yardstick for point in self.points if point.yardstick is not None]
        has_yardstick = len(yardsticks) == len(self.points)
        bottom = (LOWER if has_yardstick else UPPER)[1]
        parts = [*self._environments(bottom), *axis(self._panel, of_case, above=UPPER[0] - 12)]
        parts += [*self._segments(bottom), *self._dots()]
        if has_yardstick:
            values = [in_unit(value, key) for value in yardsticks]
            lower = panel(self._plot, values, (), LOWER)
            parts += [*axis(lower, of_yardstick), line(lower, values)]
        parts += dates(self._plot, self.nights, bottom)
        title = f"{figure} of {tidy(self.history.case)} on {tidy(self.history.address)} over {len(self.nights)} nights"
        accepted = list(self._acknowledged(bottom + _WORDS))
        return svg(WIDTH, bottom + (_WORDS + 10 if accepted else 24), title, [*parts, *accepted])

    @property
    def _is_ratio(self) -> bool:
        return self.points[-1].ratio is not None

    @cached_property
    def _plot(self) -> Plot:
        return plot_of(len(self.nights))

    @cached_property
    def _ys(self) -> list[float]:
        places = [from_scale(to_scale(point) or 0.0, self.figure.key) for point in self.points]
        return list(map(self._shown, places))

    @cached_property
    def _panel(self) -> Plot:
        return panel(self._plot, self._ys, [self._shown(segment.level) for _, segment, _ in self._stretches])

    @cached_property
    def _stretches(self) -> list[tuple[int, Segment, tuple[int, int]]]:
        """Return the segments in the chart as tuples (number from 1, Segment, (first night's index, last night's index))."""
        places = {night.night: index for index, night in enumerate(self.nights)}
        return [
            (number, segment, (places.get(segment.first, 0), places[segment.last]))
            for number, segment in enumerate(self.figure.segments, start=1)
            if segment.last in places and segment.is_ratio is self._is_ratio
        ]

    def _shown(self, value: float) -> float:
        """Convert a value to the chart's unit, such as ms; a ratio stays as it is."""
        return value if self._is_ratio else in_unit(value, self.figure.key)

    def _edge(self, index: int) -> float:
        """Return the x pixel midway between nights `index` - 1 and `index`. At the chart's ends, move it 4 pixels outwards."""
        aside = -4 if index == 0 else 4 if index == len(self.nights) else 0
        return self._plot.x(index - 0.5) + aside

    def _environments(self, bottom: int) -> Iterator[str]:
        """Yield an SVG rectangle behind every second group of nights. A group is consecutive nights with equal environments."""
        index = 0
        for count, (_, alike) in enumerate(groupby(self.nights, key=lambda night: sorted(night.environment.items()))):
            first, index = index, index + len(list(alike))
            left, right = self._edge(first), self._edge(index)
            if count % 2:
                size = f'width="{right - left:.1f}" height="{bottom - UPPER[0]}"'
                yield f'<rect class="surroundings" x="{left:.1f}" y="{UPPER[0]}" {size} fill="{FAINT}" fill-opacity="0.45"/>'

    def _segments(self, bottom: int) -> Iterator[str]:
        """Yield SVG elements: a horizontal line at each segment's level, and a numbered vertical line between segments."""
        free = 0.0
        for place, segment, (first, last) in self._stretches:
            y, left, right = self._panel.y(self._shown(segment.level)), self._edge(first), self._edge(last + 1)
            yield rule("level", (left, y), (right, y), _INK, ' stroke-width="1.5"')
            if place > 1 and segment.first == self.nights[first].night:
                yield rule("edge", (left, UPPER[0] - 6), (left, bottom), RULE, ' stroke-dasharray="3 3"')
                if left >= free:
                    yield text(left, UPPER[0] - 11, str(place), anchor="middle", css_class="group", colour=_INK)
                    free = left + _APART

    def _dots(self) -> Iterator[str]:
        about: tuple[FigureName | tuple[None, None], ...] = ((None, None), (self.figure.task, self.figure.key))
        rulings = [one for one in self.history.rulings if (one.task, one.key) in about]
        kinds = {one.night: one.kind for one in sorted(rulings, key=lambda one: one.key is not None)}
        radius = 2.5 if len(self.nights) <= _FEW_NIGHTS else 1.5
        for number, (night, value) in enumerate(zip(self.nights, self._ys, strict=True)):
            x, y = self._panel.at(number, value)
            place = f'cx="{x:.1f}" cy="{y:.1f}"'
            if kind := kinds.get(night.night):
                colour = COLOURS.get(kind, PLAIN)
                yield f'<circle class="told {kind.lower()}" {place} r="4" fill="{colour}"><title>{kind}</title></circle>'
            elif is_sound(night) or self.figure.key in EXACT:
                yield f'<circle class="shared" {place} r="{radius}" fill="{PLAIN}"/>'
            else:
                yield f'<circle class="doubtful" {place} r="2.5" fill="{_PAPER}" stroke="{PLAIN}"/>'

    def _acknowledged(self, y: float) -> Iterator[str]:
        """Yield an SVG bar at vertical pixel `y` per Acknowledgement (a person accepted changes), across the accepted nights."""
        for word in self.history.acknowledged:
            nights = enumerate(self.nights) if word.covers(self.figure.task, self.figure.key) else ()
            xs = [self._plot.x(number) for number, night in nights if word.since <= night.measured_at < word.until]
            if xs:
                ends = (xs[0] - 3, y), (xs[-1] + 3, y)
                yield rule("word", *ends, COLOURS[RulingKind.IMPROVEMENT], ' stroke-width="4"')
                if xs[0] > _ROOM:
                    yield text(xs[0] - 10, y + 4, "acknowledged", anchor="end")
