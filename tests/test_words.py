"""What a reader may not know is said where it stands first: on the terminal, in the report, and in tables for elsewhere."""

from pathlib import Path

import pytest
from support.report_page import Page
from support.scripted_harness import World
from support.sentences import says
from support.stored_run import store_run
from support.synthetic_run import make_run

from quadbench.cli import main
from quadbench.report import formatting
from quadbench.report.formatting import to_markdown
from quadbench.report.html import render_html
from quadbench.report.tables import text_tables
from quadbench.results.layout import Layout


def test_the_report_explains_a_word_before_its_tables_have_it(tmp_path: Path) -> None:
    html = render_html(make_run(tmp_path), Layout(tmp_path))
    text = Page(html).text
    for sentence in (formatting.SIDES, formatting.RESIDUAL, formatting.FOUNDATION_ROM):
        assert sentence in text
        assert text.index(sentence) < text.index("LoRA restyle")
    assert text.index(formatting.TRUTH) < text.index("Against the truth")


def test_a_cell_without_a_figure_says_why_in_words_and_not_in_a_title_alone(tmp_path: Path) -> None:
    titles = [
        attributes["title"]
        for tag, attributes in Page(render_html(make_run(tmp_path), Layout(tmp_path))).elements
        if tag == "td" and "title" in attributes
    ]
    assert titles == []


@pytest.mark.parametrize("form", [[], ["--full"]])
def test_the_terminal_explains_the_sides(world: World, form: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--results", str(store_run(world).root), *form]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert formatting.SIDES in shown
    assert (formatting.RESIDUAL in shown) is bool(form)


def test_tables_for_elsewhere_carry_the_words(tmp_path: Path) -> None:
    markdown = "\n".join(map(to_markdown, text_tables(make_run(tmp_path))))
    says(markdown)
