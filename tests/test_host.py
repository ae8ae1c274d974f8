"""This machine: memory that was freed goes back to the system."""

import ctypes
from pathlib import Path

import pytest

from quadbench.host import give_back

PIECE, PIECES = 100_000, 2000  # below what the C library maps, and so returns, by itself


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_what_was_freed_below_something_in_use_is_given_back() -> None:
    pieces = [b"x" * PIECE for _ in range(PIECES)]
    del pieces[:-1]
    held = _resident_bytes()
    give_back()
    assert _resident_bytes() < held - PIECE * PIECES / 2


def _resident_bytes() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024
