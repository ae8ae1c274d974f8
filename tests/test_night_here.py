"""A night on the devices of this machine launches on those that it names, and on no other."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.sentences import says
from support.watcher import Silent

from quadbench.devices.addresses import Address
from quadbench.devices.connections import SERIAL_VARIABLE
from quadbench.devices.lab.farm_file import FARM_VARIABLE
from quadbench.errors import DeviceNotFoundError, UserError
from quadbench.nightly import launcher
from quadbench.nightly.launcher import CaseRequest, CaseResult, LocalLauncher, launch_with_retry
from quadbench.results.layout import Layout
from quadbench.statistics.multiple_testing import LOOKS
from quadbench.study.run_comparison import SideSpec

HALF = "schema_version: 1\ndevices:\n  - name: pix"
SIDE = SideSpec(source="reference", changes={})


def wanted(case: str, *words: str) -> CaseRequest:
    return CaseRequest(case=case, a=SIDE, b=SIDE, words=words, looks=LOOKS)


def launched(folder: Path, *cases: CaseRequest) -> list[CaseResult]:
    return list(launch_with_retry(LocalLauncher(layout=Layout(folder / "results"), observer=Silent()), cases, None))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The addresses that each comparison was asked for, none of which can be reached; $ANDROID_SERIAL names one beside them."""
    asked = list[list[str]]()

    def compare(a: Any, b: Any, addresses: list[Address], *_: Any, **__: Any) -> SimpleNamespace:
        asked.append([*map(str, addresses)])
        raise DeviceNotFoundError(f"{addresses} are not attached")

    monkeypatch.setattr(launcher, "compare", compare)
    monkeypatch.setenv(SERIAL_VARIABLE, "local")
    return asked


def test_a_case_none_of_whose_words_can_be_read_is_launched_nowhere_and_costs_no_other(
    asked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = tmp_path / "farm.yaml"
    farm.write_text(HALF)
    monkeypatch.setenv(FARM_VARIABLE, str(farm))
    came = launched(tmp_path, wanted("portrait", "pixel"), wanted("scene", "virtual:s25"))
    assert asked == []
    assert [(one.case, one.is_transient) for one in came] == [("portrait", True), ("scene", True)]
    assert all("farm.yaml" in (one.reason or "") for one in came)


def test_a_case_whose_words_can_be_read_the_second_time_is_launched_then(
    asked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter((UserError("farm.yaml is only half there"), ["virtual:s25"]))

    def addresses_for(*_: object) -> list[str]:
        if isinstance(meant := next(said), UserError):
            raise meant
        return meant

    monkeypatch.setattr(launcher, "addresses_for", addresses_for)
    (came,) = launched(tmp_path, wanted("portrait", "pixel"))
    assert asked == [["virtual:s25"]]
    says(came.reason)
