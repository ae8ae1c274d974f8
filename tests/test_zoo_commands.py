"""Commands of the built-in model's training: what they refuse, and where a trial leaves what it makes."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("peft")
from support.sentences import raising, says

from training import __main__ as commands
from training import loop


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command with folders below `tmp_path` and return the workbenches of what ran."""
    ran: list[tuple[str, commands.Places, loop.Workbench]] = []
    monkeypatch.setattr(commands, "run", lambda *told: ran.append(told))

    def with_arguments(*arguments: str) -> list[tuple[str, commands.Places, loop.Workbench]]:
        folders = [word for name in ("data", "photos", "work") for word in (f"--{name}", str(tmp_path / name))]
        monkeypatch.setattr(sys, "argv", ["training", *arguments, *folders])
        commands.main()
        return ran

    return with_arguments


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The file that says that the npm packages are there."""
    listing = tmp_path / "data" / "google" / "package" / "emoji.json"
    listing.parent.mkdir(parents=True)
    listing.write_text("[]")
    return listing


def elsewhere(folder: Path) -> list[str]:
    return ["--out", str(folder / "out"), "--docs", str(folder / "docs")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vae", "--most", "0"], (1, 0)),
        (["vae", "--threads", "-1"], (1, "-1")),
        (["vae", "--minutes", "nan"], (0,)),
        (["vae", "--most", "3"], ("--out", "--docs")),
    ],
)
def test_wrong_numbers_are_refused(
    call, capsys: pytest.CaptureFixture[str], arguments: list[str], message: tuple[object, ...]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(*arguments)
    says(capsys.readouterr().err, *message)


@pytest.mark.parametrize(
    ("command", "lacking"),
    [("vae", "the photograph"), ("base", "the autoencoder"), ("sticker", "the model"), ("sheet", "the model")],
)
def test_a_command_names_what_it_lacks(call, data: Path, tmp_path: Path, command: str, lacking: str) -> None:
    with raising(SystemExit, lacking, "there is no file '", snapshot=False):  # its words name the machine's folders
        call(command, *elsewhere(tmp_path))
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "docs").exists()


def test_data_that_is_not_there_is_named(call) -> None:
    with raising(SystemExit, "emoji.json"):
        call("inputs")


def test_a_trial_counts_for_nothing_but_itself(call, data: Path, tmp_path: Path) -> None:
    [(_, places, workbench)] = call("inputs", "--most", "3", *elsewhere(tmp_path))
    assert workbench.folder == tmp_path / "work" / "most-3" / "inputs"
    assert places.out == tmp_path / "out"
    assert (workbench.folder / "done").exists()
    assert not (tmp_path / "work" / "inputs").exists()
