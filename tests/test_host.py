"""This machine: freed memory goes back to the system, a lock says who holds it, and modules are the installed ones."""

import ctypes
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from quadbench.host import file_lock, python_module, release_memory, signal_name

PIECE, PIECES = 100_000, 2000  # below what the C library maps, and so returns, by itself


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_what_was_freed_below_something_in_use_is_given_back() -> None:
    pieces = [b"x" * PIECE for _ in range(PIECES)]
    del pieces[:-1]
    held = _resident_bytes()
    release_memory()
    assert _resident_bytes() < held - PIECE * PIECES / 2


def test_who_waits_for_a_lock_is_told_who_holds_it_and_goes_on_when_it_is_free(tmp_path: Path) -> None:
    path, told, ended, waited = tmp_path / "lock", list[str](), threading.Event(), threading.Event()

    def tell(holder: str) -> None:
        told.append(holder)
        waited.set()

    def second() -> None:
        with file_lock(path, "the second", tell):
            assert path.read_text() == "the second"
            ended.set()

    waiting = threading.Thread(target=second)
    with file_lock(path, "the first", tell):
        waiting.start()
        assert waited.wait(30)
        assert not ended.is_set()
    waiting.join()
    assert told == ["the first"]
    assert ended.is_set()


def test_a_file_in_the_working_directory_is_not_taken_for_a_package(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit('taken for the package')")
    module = subprocess.run(
        [sys.executable, "-m", "quadbench", "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    safe = subprocess.run(python_module("quadbench", "--version"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (module.returncode, safe.returncode) == (1, 0)
    assert "quadbench" in safe.stdout


def _resident_bytes() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (36, "unknown"), (200, "unknown")])
def test_a_signal_without_a_name_is_unknown(number: int, name: str) -> None:
    assert signal_name(number) == name
