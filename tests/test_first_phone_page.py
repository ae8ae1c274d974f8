"""The page of the first phone lists each claim that the docs make without hardware, and its commands are ones that exist."""

import re
import shlex
from pathlib import Path

import pytest

from quadbench.cli import build_parser
from quadbench.devices.addresses import parse_address
from quadbench.devices.personal_data import KINDS
from quadbench.devices.recording import Recording

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "first-phone.md").read_text()
ROWS = re.findall(r"^\| [^|]+ \| \[[^\]]+\]\(([^)]*)\) \| `([^`]+)` \| [^|]+ \|$", PAGE, re.MULTILINE)
DOUBT = re.compile(
    r"\bnever (?:on a|been|tried|tested|run|built|loaded|compiled|seen)\b|\bwas only tried\b|\bnot tried\b(?!`)|\buntested\b"
    r"|\bnot tested on a phone\b|\bnobody has tried\b|\bnot compared with\b|\bno test ever\b|\bnothing on this page has ever\b",
    re.IGNORECASE,
)
OTHER_DOUBTS = {  # sections whose doubts are not about a phone or an NPU
    "farm.md": "several real hosts",
    "lint.md": "forms of operators",
    "quality.md": "networks of others",
    "adding-a-device.md": "how a profile tells its doubts",
    "index.md": "a link's words",
    "troubleshooting.md": "words of messages",
    "first-phone.md": "the page itself",
}


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def doubtful_sections() -> set[str]:
    """Return `page.md#anchor` of each section that says that something was not tried; the first section of a page is the page."""
    places = set()
    for page in sorted(DOCS.glob("*.md")):
        if page.name not in OTHER_DOUBTS:
            first, *others = re.split(r"^#+ ", page.read_text(), flags=re.MULTILINE)[1:]
            places |= {page.name} if DOUBT.search(first) else set()
            places |= {f"{page.name}#{anchor(part.partition(chr(10))[0])}" for part in others if DOUBT.search(part)}
    return places


def test_every_section_with_a_doubt_about_hardware_stands_in_the_page() -> None:
    listed = {target for target, _ in ROWS}
    assert doubtful_sections() - listed - {"phones.md#what-there-is"} == set()  # which only links to AI Hub's own page


def test_the_page_has_every_row_that_its_table_has() -> None:
    table = PAGE.partition("## What was never seen")[2].partition("\n## ")[0]
    assert len(ROWS) == len(re.findall(r"^\|", table, re.MULTILINE)) - 2 > 15


@pytest.mark.parametrize("command", sorted({command for _, command in ROWS}))
def test_a_command_of_the_page_is_one_that_quadbench_takes(command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "quadbench"
    options = vars(build_parser().parse_args(words))
    for key in ("device", "devices"):
        if isinstance(options.get(key), str):
            assert all(parse_address(address).text == address for address in options[key].split(","))


def test_the_page_names_every_kind_of_personal_data_and_every_key_with_content() -> None:
    removed = PAGE.partition("### What is removed")[2].partition("### ")[0].lower()
    removed = " ".join(removed.split())
    words = {"property": "properties", "IMEI or similar": "imei", "known value": "known values"}
    assert [kind for kind in KINDS if words.get(kind, kind).lower() not in removed] == []
    told = {"schema_version", "quadbench", "recorded_at", "family", "profile", "is_cut"}
    assert [key for key in Recording.model_fields if key not in told and f"`{key}`" not in PAGE] == []
