"""Report page: a report as its reader has it, parsed, and one row of its table of figures."""

from html.parser import HTMLParser

from quadbench.artifacts import RunResult
from quadbench.report.kpi import KpiRow, kpi_rows

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """A parsed report: its elements, its texts, and the tags that do not balance."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(1 for name, _ in self.elements if name == tag)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def row_of(result: RunResult, task: str, key: str) -> KpiRow:
    return next(row for row in kpi_rows(result) if (row.task, row.key) == (task, key))
