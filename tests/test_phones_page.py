"""The page of phones lists what nobody saw on hardware; its commands are ones that exist, and a recording is told whole."""

import re
import shlex
from pathlib import Path

import pytest

from quadbench.cli import build_parser
from quadbench.devices.addresses import parse_address
from quadbench.devices.personal_data import KINDS
from quadbench.devices.recording import Recording

PAGE = (Path(__file__).parents[1] / "docs" / "phones.md").read_text()
CLAIMS = PAGE.partition("## What was never tried")[2]
COMMANDS = re.findall(r"^\| [^|]+ \| `([^`]+)` \| [^|]+ \|$", CLAIMS, re.MULTILINE)


def test_every_claim_without_hardware_has_a_command() -> None:
    assert len(COMMANDS) == len(re.findall(r"^\|", CLAIMS, re.MULTILINE)) - 2 > 10


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_a_command_of_the_page_is_one_that_quadbench_takes(command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "quadbench"
    options = vars(build_parser().parse_args(words))
    for key in ("device", "devices"):
        if isinstance(options.get(key), str):
            assert all(parse_address(address).text == address for address in options[key].split(","))


def test_the_page_names_every_kind_of_personal_data_and_every_key_with_content() -> None:
    removed = " ".join(PAGE.partition("**What is removed**")[2].partition("\n\n")[0].lower().split())
    words = {"property": "properties", "IMEI or similar": "imei", "known value": "known values"}
    assert [kind for kind in KINDS if words.get(kind, kind).lower() not in removed] == []
    told = {"schema_version", "quadbench", "recorded_at", "family", "profile", "is_cut"}
    assert [key for key in Recording.model_fields if key not in told and f"`{key}`" not in PAGE] == []
