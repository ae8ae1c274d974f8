"""A report says what to do next: what its run lacks most."""

import re
from collections.abc import Iterable
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from markupsafe import escape
from support.sentences import reads, says
from support.synthetic_run import ABBA, failed, make_run

from quadbench.artifacts import Caveat, RunResult, Variant
from quadbench.report.headline import next_of_comparison, next_step
from quadbench.report.page import page_environment
from quadbench.results.layout import Layout

PHONE = "Attach a phone"
MORE = "set measure.launches to 12"


def told(result: RunResult, caveats: Iterable[Caveat] = ()) -> str:
    return next_step(result, caveats)


def test_a_run_that_was_cut_short_goes_on_first_of_all(tmp_path: Path) -> None:
    result = make_run(tmp_path, change=lambda record: failed(record, "it fell"))
    cut = replace(result, is_cut_short=True)
    reads(told(cut, [Caveat.VIRTUAL_DEVICE]), "quadbench run", "--resume", result.run_id)
    says(told(result, [Caveat.VIRTUAL_DEVICE]))


@pytest.mark.parametrize(
    ("sentence", "commands"),
    [
        ("Go on with the run: quadbench run --resume r1 --results 'a b'", ["quadbench run --resume r1 --results 'a b'"]),
        ("See the reasons (quadbench doctor --device NAME tries a device), and run.", ["quadbench doctor --device NAME"]),
        ("See its name with quadbench devices, and run with --devices NAME. Then", ["quadbench devices", "--devices NAME"]),
        ("Settle <it>: quadbench compare a b --devices virtual:s25", ["quadbench compare a b --devices virtual:s25"]),
        ("Nothing has to be done.", []),
    ],
)
def test_commands_of_a_sentence_are_code_whose_words_stay_whole(sentence: str, commands: list[str]) -> None:
    html = page_environment().from_string("{{ sentence|with_commands }}").render(sentence=sentence)
    codes = re.findall(r'<code class="long">(.*?)</code>', html)
    assert [unescape(re.sub("<[^>]*>", "", code)) for code in codes] == commands
    assert [re.findall("<span>(.*?)</span>", code) for code in codes] == [escape(command).split(" ") for command in commands]
    assert unescape(re.sub("<[^>]*>", "", html)) == sentence


@pytest.mark.parametrize("caveat", [Caveat.VIRTUAL_DEVICE, Caveat.THIS_MACHINE])
def test_where_no_phone_was_measured_one_is_asked_for(tmp_path: Path, caveat: Caveat) -> None:
    says(told(make_run(tmp_path), [Caveat.FEW_SAMPLES, caveat]))
    assert PHONE not in told(make_run(tmp_path), [Caveat.FEW_SAMPLES])


def test_launches_for_verdicts_are_asked_for_where_both_sides_ran_too_few(tmp_path: Path) -> None:
    assert MORE in told(make_run(tmp_path))
    assert told(make_run(tmp_path, variants=ABBA * 6)) == ""
    alone = make_run(tmp_path)
    shared = tuple(record for record in alone.records if record.variant is Variant.SHARED)
    assert told(replace(alone, records=shared)) == ""
    assert told(replace(alone, records=())) == ""


def test_going_on_is_a_command_in_the_same_results_folder(tmp_path: Path) -> None:
    cut = replace(make_run(tmp_path), is_cut_short=True)
    assert next_step(cut, [], words=Layout(Path("results")).root_arguments).endswith(cut.run_id)
    assert next_step(cut, [], words=Layout(Path("my runs")).root_arguments).endswith(f"{cut.run_id} --results 'my runs'")


def test_after_a_comparison_doubts_are_cured_before_more_is_launched() -> None:
    def said(*caveats: Caveat, is_decided: bool = True) -> str:
        return next_of_comparison(caveats, is_in_turn=True, is_decided=is_decided)

    reads(said())
    says(said(is_decided=False), "--to-see")
    reads(said(Caveat.LOADED_HOST))
    assert said(Caveat.THIS_MACHINE).startswith("Attach a phone")
    reads(next_of_comparison((), is_in_turn=False, is_decided=False))
