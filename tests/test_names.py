"""Names: what may become part of a path is taken as it is, everything else is refused wherever such a name comes in."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from support.sentences import raising

from quadbench.artifacts import FileRef
from quadbench.artifacts.safe_text import check_file_name, check_relative_path
from quadbench.errors import UserError
from quadbench.quad.inputs import read_inputs
from quadbench.recipe import Task
from quadbench.results.layout import Layout

CLIMBING = ("../x", "../../x", "a/../../x", "/etc/passwd", "~/x")
NO_NAMES = ("", ".", "..", ".hidden", "-rf", " x", "x ", "x.", "a\0b", "a\nb", "a\x1b[31m", "a\\b", "x" * 201, "ä" * 101)


@pytest.mark.parametrize("name", ["000", "angry face", "Dr. No (1)", "grün", "x" * 200])
def test_a_name_of_a_file_is_taken_as_it_is(name: str) -> None:
    assert check_file_name(name) == name


@pytest.mark.parametrize("name", [*NO_NAMES, *CLIMBING, "a/b"])
def test_what_cannot_name_a_file_is_refused(name: str) -> None:
    with raising(ValueError):
        check_file_name(name)


@pytest.mark.parametrize("serial", ["..", ".", "../../x", ".hidden", "a/b"])
def test_no_device_has_its_folder_among_those_of_others(serial: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    folder = layout.device(serial)
    assert folder.parent == layout.devices
    assert not folder.name.startswith(".")


def test_a_path_below_a_folder_is_taken_as_it_is() -> None:
    assert check_relative_path("inputs/angry face.mask.png") == "inputs/angry face.mask.png"


@pytest.mark.parametrize("path", [*CLIMBING, "a//b", "a/./b", "a/", "a/.git/b", "x/" * 600])
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with raising(ValueError):
        check_relative_path(path)


@pytest.mark.parametrize(("key", "value"), [("path", "../x"), ("sha256", "../" + "0" * 61)])
def test_a_reference_to_a_file_elsewhere_is_refused_when_it_is_read(key: str, value: str) -> None:
    fields = {"path": "a.png", "sha256": "0" * 64, "size_bytes": 1} | {key: value}
    with raising(ValueError, key):
        TypeAdapter(FileRef).validate_python(fields)


@pytest.mark.parametrize("run_id", ["../x", "a/b", ""])
def test_no_run_lies_outside_the_results_folder(run_id: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for place in (layout.run, layout.report):
        with raising(ValueError):
            place(run_id)


def folder_of(tmp_path: Path, *entries: dict[str, Any]) -> Task:
    """Write `inputs.json` and return a task that takes it; every file that an entry may name is there."""
    for name in ("000.png", "../outside.png"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "in/inputs.json").write_text(
        json.dumps([{"name": "000", "image": "000.png", "prompt": "p"} | e for e in entries])
    )
    document = {"name": "it", "kind": "image-to-image", "strength": 0.5, "adapter": None}
    document |= {"sampler": {"scheme": "ed", "steps": 2}, "inputs": {"source": "folder", "path": Path("in")}}
    return TypeAdapter(Task).validate_python(document, context={"folder": tmp_path})


@pytest.mark.parametrize("name", [*NO_NAMES, *CLIMBING, "a/b"])
def test_an_input_whose_name_is_none_is_refused_before_anything_is_built(name: str, tmp_path: Path) -> None:
    with raising(UserError, "inputs.json", "0.name"):
        read_inputs(folder_of(tmp_path, {"name": name}))


@pytest.mark.parametrize("key", ["image", "mask", "truth"])
def test_an_input_takes_no_file_from_outside_its_folder(key: str, tmp_path: Path) -> None:
    with raising(UserError, f"0.{key}", "../outside.png"):
        read_inputs(folder_of(tmp_path, {key: "../outside.png"}))


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a.mask"), ("a.truth", "a")])
def test_inputs_whose_files_would_share_a_name_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    with raising(UserError):
        read_inputs(folder_of(tmp_path, *({"name": name} for name in names)))


def test_inputs_with_names_of_their_own_are_taken(tmp_path: Path) -> None:
    assert [entry.name for entry in read_inputs(folder_of(tmp_path, {"name": "a.b"}, {"name": "angry face"}))] == [
        "a.b",
        "angry face",
    ]
