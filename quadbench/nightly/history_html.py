"""History report: cases on devices with their histories -> one self-contained HTML file, readable without script."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache

from jinja2 import Environment
from pydantic import TypeAdapter

from quadbench.nightly.history import CaseHistory
from quadbench.nightly.history_document import CaseDocument
from quadbench.nightly.history_view import Told, history_view
from quadbench.report.page import page_environment
from quadbench.report.units import plural

_MOST_RULINGS = 20  # of a device, in the data: quadbench history CASE --json has all


@dataclass(frozen=True, kw_only=True)
class HistoryPage:
    """Histories as a page has them, of one case or of all.

    `commands` are those that say the same again, and `next_step` what comes next, by purpose; one without a
    command is a sentence without its stop.
    """

    case: str | None
    told: Sequence[Told]
    commands: Mapping[str, str]
    next_step: Mapping[str, str]
    made_at: datetime

    @property
    def title(self) -> str:
        """Return what the page is about in words."""
        return self.case or "All cases"


def render_history(page: HistoryPage) -> str:
    """Return a page of histories as text."""
    view = history_view(page.told, page.made_at)
    data = _data(page.case, (section.history for section in view.sections))
    return _environment().get_template("case_history.html.j2").render(page=page, view=view, data=data)


def span_words(told: Sequence[Told]) -> str:
    """Write of how many nights a page is, from when to when."""
    nights = {(night.night, night.measured_at.date()) for one in told for night in one.nights}
    days = sorted(day for _, day in nights)
    return f"{plural(len({name for name, _ in nights}), 'night')}, {days[0]} to {days[-1]}" if days else "no night"


def _data(case: str | None, histories: Iterable[CaseHistory]) -> str:
    short = tuple(replace(one, rulings=one.rulings[-_MOST_RULINGS:]) for one in histories)
    return TypeAdapter(CaseDocument).dump_json(CaseDocument(case=case, devices=short), indent=1).decode()


@cache
def _environment() -> Environment:
    return page_environment({"span": span_words})
