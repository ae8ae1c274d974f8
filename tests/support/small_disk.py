"""Small disk: Python code -> what it printed on a file system that is small, full or read-only, mounted for it alone."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

from support.forked import told

_PRELUDE = """
import ctypes, os, subprocess, sys
from pathlib import Path
disk = Path(sys.argv[1])
assert ctypes.CDLL(None).unshare(0x00020000) == 0  # CLONE_NEWNS: what is mounted now is mounted for this process alone
for words in (['--make-rprivate', '/'], ['-t', 'tmpfs', '-o', 'size=' + sys.argv[2], 'tmpfs', disk]):
    subprocess.run(['mount', *words], check=True)
def fill():
    (disk / 'filler').write_bytes(bytes(max(0, os.statvfs(disk).f_bavail) * os.statvfs(disk).f_frsize))
def seal():
    subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
"""


def on_small_disk(folder: Path, code: str, *, size: str = "1m") -> str:
    """Run the code with `disk`, the path of an empty file system of that size, and `fill()`, which leaves nothing of it free.

    `seal()` makes it read-only. Skips the test where this user may not mount.
    """
    folder.mkdir(exist_ok=True)
    if not _is_mountable():
        pytest.skip("this user may not mount a file system of its own")
    return told(_PRELUDE + code, folder, size)


@cache
def _is_mountable() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
