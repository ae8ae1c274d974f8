"""Files from outside: what is no regular file, too large or no JSON is refused at once, with the file's name."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
from support.sentences import raising, says

from quadbench.cli import main
from quadbench.errors import ArtifactError, SpecError, UserError
from quadbench.quad.cache import digests_of
from quadbench.quad.families.sd1 import SD1
from quadbench.quad.model_files import foundation_files
from quadbench.recipe.recipe import load_recipe
from quadbench.results.digests import sha256_of
from quadbench.spec import read_file, read_json
from quadbench.spec.files import require_file

pytestmark = pytest.mark.timeout(60)  # a pipe that is waited for never ends


@pytest.fixture(params=["pipe", "device", "folder", "missing", "too long"])
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path at which no regular file lies."""
    path = {"device": Path("/dev/zero"), "too long": tmp_path / ("x" * 300)}.get(request.param, tmp_path / "it.json")
    if request.param == "pipe":
        os.mkfifo(path)
    if request.param == "folder":
        path.mkdir()
    return path


@pytest.fixture
def copied_recipe(tmp_path: Path, tiny_recipe: Path) -> Path:
    """The tiny model's recipe with all that it names; tests spoil it."""
    return Path(shutil.copytree(tiny_recipe.parent, tmp_path / "tiny")) / tiny_recipe.name


def write_tensors(path: Path, ends: dict[str, int], data_bytes: int) -> None:
    """Write a safetensors file whose tensors end where `ends` says."""
    header = {name: {"dtype": "F32", "shape": [end // 4], "data_offsets": [0, end]} for name, end in ends.items()}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data_bytes))


def test_what_is_no_regular_file_is_refused_at_once(no_file: Path) -> None:
    with raising(ArtifactError):
        read_file(no_file, fault=ArtifactError, hint="do that")


def test_no_digest_is_taken_of_what_is_no_regular_file(no_file: Path) -> None:
    with pytest.raises(OSError, match=str(no_file)):
        sha256_of(no_file)


def test_what_is_no_regular_file_is_no_recipe(no_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "check", str(no_file)]) == 2
    says(capsys.readouterr().err)


def test_what_is_no_regular_file_is_no_foundation_model(no_file: Path) -> None:
    with raising(UserError):
        require_file(no_file, "foundation model", fault=UserError)


def test_a_file_may_have_as_many_bytes_as_are_allowed_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_bytes(b"12345")
    assert read_file(path, fault=UserError, max_bytes=5) == b"12345"
    with raising(UserError, 5, 4):
        read_file(path, fault=UserError, max_bytes=4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, ""),
        ('{"a": NaN}', ""),
        ('{"a": 1', "EOF"),
        ("", "EOF"),
        ("\xff", ""),
        ('"\\ud800"', ""),
        ("9" * 10_000, ""),
    ],
)
def test_what_is_no_json_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "it.json"
    path.write_bytes(text.encode("latin-1"))
    with raising(UserError, "it.json", reason):
        read_json(path, fault=UserError)


def test_a_recipe_of_megabytes_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("schema_version: 1\n" + "".join(f"key{i}: 1\n" for i in range(200_000)))
    with raising(SpecError, 1048576) as refusal:
        load_recipe(path)
    assert len(str(refusal.value)) < 500


def test_of_many_problems_of_a_file_fifty_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("schema_version: 1\n" + "".join(f"key{i}: 1\n" for i in range(2000)))
    with pytest.raises(SpecError) as refusal:
        load_recipe(path)
    lines = str(refusal.value).splitlines()
    assert len(lines) == 51
    assert lines[-1].startswith("and ")
    assert lines[-1].endswith("more problems")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("9" * 30, (18, 30)),
        ("1.0e+400", ("1.0e+400", "1.8e308")),
        ("1.0e+300", ("0.0", "604800.0", "1e+300")),
    ],
)
def test_a_number_that_is_too_large_is_said_to_be_so(
    value: str, reason: tuple[object, ...], tmp_path: Path, tiny_recipe: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(tiny_recipe.read_text().replace("timeout_s: 120", f"timeout_s: {value}"))
    with raising(SpecError, "recipe.yaml", "measure.timeout_s") as refusal:
        load_recipe(path)
    says(str(refusal.value), *reason)


@pytest.mark.parametrize("path", ['"a\\0b"', "x" * 300, "a/" * 3000, "~nobody-has-this-name/x"])
def test_a_path_that_no_file_system_takes_is_a_problem_of_its_line(path: str, tmp_path: Path, tiny_recipe: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny_recipe.read_text().replace("path: model", f"path: {path}"))
    with raising(SpecError, "recipe.yaml:3: foundation.path"):
        load_recipe(recipe)


def test_a_recipe_is_checked_with_what_it_names(tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(tiny_recipe.read_text())
    assert main(["recipe", "check", str(path)]) == 2
    said = capsys.readouterr().err
    says(said, "inputs/inputs.json")
    path.write_text(tiny_recipe.read_text().replace("samples: 1", "samples: 3").replace("path: ", f"path: {tiny_recipe.parent}/"))
    assert main(["recipe", "check", str(path)]) == 2
    says(capsys.readouterr().err, "change", 3)
    assert main(["recipe", "check", str(tiny_recipe)]) == 0


def test_a_folder_that_cannot_be_entered_is_a_problem_and_no_traceback(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, **_options: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)  # of which Path.is_dir and Path.is_file raise what it raises, unlike os.path
    with raising(UserError, "model_index.json"):
        foundation_files(tiny_recipe.parent / "model", SD1.folders)


FOLDERS = "{source: peft, path: adapters/first}"
MODEL = "{source: diffusers, path: model}"


NAMED = (
    (
        MODEL,
        "{source: diffusers, path: /etc/ssl}",
        "'/etc/ssl' lacks unet, vae, text_encoder, tokenizer, ",
    ),
    (MODEL, '{source: diffusers, path: "~"}', "lacks unet"),
    (MODEL, '{source: diffusers, path: ""}', "lacks unet"),
    (MODEL, "{source: checkpoint, path: /etc/passwd}", "'/etc/passwd' is not a .safetensors file"),
    (MODEL, "{source: checkpoint, path: cut.safetensors}", "is not a valid safetensors file"),
    (FOLDERS, "{source: peft, path: /etc/passwd}", "'/etc/passwd' is not a folder; expected a folder with adapter_config.json"),
    (FOLDERS, "{source: peft, path: /proc/self/mem}", "adapter 'first': '/proc/self/mem' is not a folder"),
    (FOLDERS, "{source: peft, path: /etc}", "'/etc/adapter_config.json' cannot be read"),
    (FOLDERS, "{source: diffusers, path: adapters/first}", "is a folder; expected a .safetensors file"),
    (FOLDERS, "{source: kohya, path: /etc/passwd}", "'/etc/passwd' is not a valid safetensors file: the file has"),
    (
        FOLDERS,
        "{source: kohya, path: /proc/self/mem}",
        "/mem' is not a valid safetensors file: Input/output error",
    ),
    (FOLDERS, "{source: kohya, path: cut.safetensors}", "the header describes 8 bytes of tensors, but the file has 4"),
    (FOLDERS, "{source: kohya, path: many.safetensors}", "the file has 10001 tensors; expected at most 10000"),
    (FOLDERS, "{source: kohya, path: empty.safetensors}", "has no tensors"),
    (FOLDERS, "{source: kohya, path: adapter.bin}", "is a pickle, which is never opened"),
)


@pytest.mark.timeout(180)
def test_what_a_recipe_names_must_hold_what_its_format_reads(copied_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is hashed: by a check of the recipe, and by a dry run of it."""
    folder, right = copied_recipe.parent, copied_recipe.read_text()
    write_tensors(folder / "cut.safetensors", {"a": 8}, 4)
    write_tensors(folder / "many.safetensors", {f"{number}": 0 for number in range(10_001)}, 0)
    write_tensors(folder / "empty.safetensors", {}, 0)
    (folder / "adapter.bin").touch()
    check, run = ["recipe", "check"], ["run", "--dry-run", "--devices", "local", "--results", str(folder / "results")]
    of_each_part = (NAMED[0], NAMED[-1])  # both commands ask the same
    for words, (there, instead, reason) in (*((check, case) for case in NAMED), *((run, case) for case in of_each_part)):
        assert there in right
        copied_recipe.write_text(right.replace(there, instead))
        assert main([*words, str(copied_recipe)]) == 2, instead
        said = " ".join(capsys.readouterr().err.split())
        assert reason in said
        assert "None" not in said


def test_only_the_files_that_a_format_reads_count(copied_recipe: Path) -> None:
    before = digests_of(load_recipe(copied_recipe)).bundle
    folder = copied_recipe.parent
    for place in ("model/notes.md", "model/unet/pytorch.bin", "adapters/first/optimizer.pt", "model/logs/a/b.json"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text("x")
    assert digests_of(load_recipe(copied_recipe)).bundle == before
    config = folder / "adapters/first/adapter_config.json"
    config.write_text(config.read_text() + "\n")
    assert digests_of(load_recipe(copied_recipe)).bundle != before


def test_more_files_than_any_model_has_are_not_hashed(copied_recipe: Path) -> None:
    for number in range(501):
        (copied_recipe.parent / f"model/unet/{number}.json").touch()
    with raising(UserError, 500):
        digests_of(load_recipe(copied_recipe))


def test_a_file_that_cannot_be_read_is_named_by_whoever_hashes_it() -> None:
    with pytest.raises(OSError, match="'/proc/self/mem'"):
        sha256_of(Path("/proc/self/mem"))


def test_an_input_that_is_a_link_out_of_its_folder_is_refused(copied_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied_recipe.parent / "inputs"
    picture = sorted(folder.glob("*.png"))[0]
    (copied_recipe.parent / "elsewhere.png").write_bytes(picture.read_bytes())
    picture.unlink()
    picture.symlink_to("../elsewhere.png")
    assert main(["recipe", "check", str(copied_recipe)]) == 2
    says(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("".join(f"key{i}: 1\n" for i in range(60_000)), (20000,)),
        ("adapters:\n" + "".join(f"  a{i}: {{source: builtin, name: restyle}}\n" for i in range(300)), (256, 300)),
    ],
)
def test_a_recipe_of_endless_length_is_refused_by_its_number(text: str, reason: tuple[object, ...], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"schema_version: 1\n{text}")
    with raising(SpecError, *reason):
        load_recipe(path)
