"""Storage: where the results folder is full, read-only or none, every stage says so and leaves nothing half-written."""

from pathlib import Path

import pytest
from support.sentences import raising, says
from support.small_disk import on_small_disk

from quadbench.artifacts import CompiledBundle
from quadbench.cli import main
from quadbench.errors import BuildError, StorageError, UserError
from quadbench.results.disk import removal_errors, require_writable, storage_errors, write_atomic
from quadbench.results.layout import Layout
from quadbench.results.manifest import publish
from quadbench.results.stored_runs import RunFile, save_run

_TELL = """
from quadbench.errors import QuadbenchError
def tell(action):
    try:
        print('no error', action())
    except QuadbenchError as error:
        print(type(error).__name__, error.exit_code, error)
"""
_STORE = """
from dataclasses import replace
from quadbench.results.layout import Layout
from quadbench.results.records import open_records, read_records
from quadbench.results.stored_runs import store_record
from support.stored_records import record, sample
layout = Layout(disk)
many = replace(record('r2'), samples=tuple(sample(step=i) for i in range(5000)))
"""


def test_a_file_that_another_process_writes_at_the_same_time_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "admitted.json", Path.write_text

    def overtaken(temporary: Path, text: str, **options: str) -> int:
        count = write(temporary, text, **options)
        monkeypatch.undo()
        write_atomic(path, "the other's")
        return count

    monkeypatch.setattr(Path, "write_text", overtaken)
    write_atomic(path, "mine")
    assert path.read_text() == "mine\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_artifact_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "from quadbench.results.manifest import publish\n"
        "def make(folder):\n"
        "    (folder / 'graph').write_bytes(bytes(2 * 2**20))\n"
        "tell(lambda: publish(disk / 'bundles' / 'b', make))\n"
        "print(list((disk / 'bundles').iterdir()))\n"
    )
    said = on_small_disk(tmp_path / "disk", _TELL + code).splitlines()
    says(said[0], "StorageError", 3)
    assert said[1] == "[]"


def test_a_library_that_says_it_in_its_own_way_is_understood(tmp_path: Path) -> None:
    code = (
        "import numpy as np\n"
        "from safetensors.numpy import save_file\n"
        "from quadbench.results.manifest import publish\n"
        "tell(lambda: publish(disk / 'b', lambda folder: save_file({'a': np.zeros(2**19)}, folder / 'a')))\n"
    )
    says(on_small_disk(tmp_path / "disk", _TELL + code), "StorageError", 3)


def test_a_library_that_cannot_write_is_understood_too(tmp_path: Path) -> None:
    code = (
        "from quadbench.errors import BuildError\n"
        "from quadbench.results.manifest import publish\n"
        "def make(folder):\n"
        "    seal()\n"
        "    raise BuildError('open file failed')\n"
        "tell(lambda: publish(disk / 'b', make))\n"
    )
    said = on_small_disk(tmp_path / "disk", _TELL + code, size="8m")
    assert said.startswith("StorageError 3 '")
    says(said)


def test_a_record_that_does_not_fit_leaves_the_others_whole(tmp_path: Path) -> None:
    code = (
        "with open_records(layout.database) as records:\n"
        "    records.store(record())\n"
        "    fill()\n"
        "    tell(lambda: store_record(records, many, layout))\n"
        "(disk / 'filler').unlink()\n"
        "with read_records(layout.database) as records:\n"
        "    print(records.run_records('run-a') == (record(),))\n"
    )
    said = on_small_disk(tmp_path / "disk", _TELL + _STORE + code).splitlines()
    assert said[0].startswith("StorageError 3 ")
    says(said[0], "quadbench.sqlite")
    assert said[1] == "True"


def test_records_are_read_from_a_full_disk_and_from_one_that_is_read_only(tmp_path: Path) -> None:
    code = (
        "with open_records(layout.database) as records:\n"
        "    records.store(record())\n"
        "def count():\n"
        "    with read_records(layout.database) as records:\n"
        "        return len(records.run_records('run-a'))\n"
        "fill()\n"
        "tell(count)\n"
        "seal()\n"
        "tell(count)\n"
        "tell(lambda: open_records(layout.database))\n"
        "print(sorted(path.name for path in disk.iterdir()))\n"
    )
    said = on_small_disk(tmp_path / "disk", _TELL + _STORE + code).splitlines()
    assert said[:2] == ["no error 1", "no error 1"]
    assert said[2].startswith("StorageError 3 ")
    says(said[2])
    assert said[3] == "['filler', 'quadbench.sqlite']"


def test_a_kit_on_a_disk_that_cannot_be_written_is_not_removed(tmp_path: Path) -> None:
    code = (
        "from support.kit_files import write_runtime\n"
        "from quadbench.cli import main\n"
        "from quadbench.kits import store\n"
        "from quadbench.results.layout import Layout\n"
        "from quadbench.target.abi import Abi\n"
        "kit = store.add_kit([write_runtime(disk / 'files')], Abi.ARM64_V8A, Layout(disk)).kit\n"
        "seal()\n"
        "tell(lambda: store.remove_kit(kit.folder.name, Layout(disk)))\n"
        "print(main(['runtime', 'remove', kit.folder.name, '--results', str(disk)]))\n"
        "print(store.list_checked_kits(Layout(disk))[kit.folder] == store.find_kit(kit.folder.name, Layout(disk)))\n"
    )
    said = on_small_disk(tmp_path / "disk", _TELL + code, size="4m").splitlines()
    assert said[0].startswith("StorageError 3 '")
    says(said[0], "Read-only file system")
    assert said[1:] == ["3", "True"]


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "from support.synthetic_run import make_run\n"
        "from quadbench.report.html import write_report\n"
        "from quadbench.results.layout import Layout\n"
        "run = make_run(disk)\n"
        "fill()\n"
        "tell(lambda: write_report(run, Layout(disk)))\n"
        "print([path for folder in disk.glob('reports') for path in folder.iterdir()])\n"
        "seal()\n"
        "tell(lambda: write_report(run, Layout(disk)))\n"
    )
    said = on_small_disk(tmp_path / "disk", _TELL + code, size="4m").splitlines()
    says(said[0], "0.0")
    assert said[1] == "[]"
    says(said[2], "Read-only file system")


def test_a_launch_on_a_full_disk_is_a_record_with_its_reason(tmp_path: Path) -> None:
    code = (
        "import tempfile\n"
        "from support.scripted_harness import GOOD, World, measured\n"
        "from quadbench.devices.local import open_local\n"
        "from quadbench.results.layout import Layout\n"
        "elsewhere = Path(tempfile.mkdtemp())\n"
        "(elsewhere / 'results').mkdir()\n"
        "(elsewhere / 'results/runs').symlink_to(disk)\n"
        "with open_local(Layout(elsewhere / 'results')) as device:\n"
        "    world = World(elsewhere / 'bundle', device)\n"
        "    fill()\n"
        "    record = measured(world, GOOD)\n"
        "print(record.status, record.error_class, record.reason)\n"
    )
    said = on_small_disk(tmp_path / "disk", code)
    says(said, 28, "No space left on device")


@pytest.mark.slow
def test_a_build_that_does_not_fit_leaves_nothing(tmp_path: Path, tiny_recipe: Path) -> None:
    code = (
        "from quadbench.cli import main\n"
        f"print(main(['run', {str(tiny_recipe)!r}, '--devices', 'local', '--results', str(disk)]))\n"
        "print(list((disk / 'bundles').iterdir()))\n"
    )
    assert on_small_disk(tmp_path / "disk", code).splitlines() == ["3", "[]"]


@pytest.fixture
def file_as_results(tmp_path: Path) -> Path:
    path = tmp_path / "results"
    path.write_text("notes")
    return path


def test_a_results_folder_that_is_a_file_is_refused_and_left_alone(
    file_as_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFile(run_id="r", bundle="b", deployments=())
    with raising(StorageError, "Not a directory"):
        save_run(Layout(file_as_results), run)
    with raising(StorageError):
        require_writable(file_as_results / "runs")
    assert main(["run", "quickstart", "--devices", "local", "--results", str(file_as_results)]) == 3
    says(capsys.readouterr().err)
    assert file_as_results.read_text() == "notes"


@pytest.mark.parametrize("command", [["runs"], ["show"], ["history"], ["who"]])
def test_a_file_is_not_read_as_an_empty_results_folder(
    command: list[str], file_as_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--results", str(file_as_results)]) == 3
    says(capsys.readouterr().err)


@pytest.mark.parametrize("command", [["run", "quickstart", "--devices", "local"], ["report"], ["quality"]])
def test_a_results_folder_that_no_file_system_takes_is_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--results", "x" * 300]) == 3
    assert "Hint: " in capsys.readouterr().err


def test_a_folder_that_vanishes_while_it_is_filled_is_said_to_be_gone(tmp_path: Path) -> None:
    def make(folder: Path) -> CompiledBundle:
        folder.rmdir()
        folder.parent.rmdir()
        (folder / "graph").write_bytes(b"")
        raise AssertionError

    with raising(StorageError, "No such file or directory"):
        publish(tmp_path / "bundles/b", make)


@pytest.mark.parametrize("error", [UserError("no such run"), None])
@pytest.mark.parametrize("is_made_anew", [False, True])
def test_a_folder_that_is_moved_while_it_is_in_use_is_said_to_be_gone(
    error: Exception | None, is_made_anew: bool, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()

    def use() -> None:
        with removal_errors(results):
            results.rename(tmp_path / "elsewhere")
            if is_made_anew:
                results.mkdir()
            if error:
                raise error

    with raising(StorageError):
        use()


def test_a_folder_that_stays_or_was_never_there_is_not_spoken_of(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with removal_errors(folder):
            pass
        with raising(UserError), removal_errors(folder):
            raise UserError("no such run")


@pytest.mark.parametrize("error", [UserError("wrong input"), BuildError("refused"), ValueError("a fault"), OSError("no name")])
def test_what_has_nothing_to_do_with_the_folder_passes_as_it_is(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error), match=str(error)) as passed, storage_errors(tmp_path):
        raise error
    assert passed.value is error
