"""Words of a command line that name nothing, or something else than is asked for, are refused with what they are."""

from pathlib import Path

import pytest
from support.live_lab import RUN, store_run
from support.sentences import reads, says

from quadbench.cli import main
from quadbench.farm.condor import CONFIG_VARIABLE
from quadbench.farm.store.opening import STORE_VARIABLE
from quadbench.results.layout import Layout


@pytest.fixture
def results(tmp_path: Path) -> tuple[str, str]:
    layout = Layout(tmp_path / "results")
    layout.root.mkdir()
    store_run(layout)
    return "--results", str(layout.root)


@pytest.mark.parametrize("words", [("show", "\udcff"), ("report", "\udcff"), ("farm", "cancel", "\udcff")])
def test_what_is_no_text_is_no_fault_of_the_database(
    words: tuple[str, ...],
    results: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "condor_config").touch()
    (tmp_path / "store").mkdir()
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "condor_config"))
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))
    assert main([*words, *results]) == 2
    reads(capsys.readouterr().err, "\\udcff", "UTF-8")


def test_a_run_that_is_named_as_if_it_were_a_recipe_says_how_it_goes_on(
    results: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", RUN, *results]) == 2
    said = capsys.readouterr().err
    says(said, RUN)
    assert f"quadbench run --resume {RUN} --results" in said
    assert main(["run", "..", *results]) == 2
    says(capsys.readouterr().err)


def test_an_adapter_is_looked_at_before_a_bundle_is_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = ("--results", str(tmp_path / "nothing"))
    (tmp_path / "text.safetensors").write_text("a text that is no header of tensors")
    for name in ("absent.safetensors", "text.safetensors"):
        assert main(["adapter", "admit", str(tmp_path / name), *results]) == 2
        says(capsys.readouterr().err)


@pytest.mark.parametrize(
    "words", [("inspect",), ("admit",), ("convert", "--rank", "4", "--recipe", "quickstart", "--output", "out.safetensors")]
)
def test_a_path_that_no_file_system_takes_is_that_of_no_adapter(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adapter", words[0], "a" * 5000, *words[1:]]) == 2
    assert "does not exist" in capsys.readouterr().err
