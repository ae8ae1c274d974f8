"""Small disk: Python code -> what it printed on a file system that is small, full or read-only, mounted for it alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_MOUNT = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'
_TESTS = Path(__file__).parents[1]


def on_small_disk(folder: Path, code: str, *, size: str = "1m") -> str:
    """Run the code with `disk`, the path of an empty file system of that size, and `fill()`, which leaves nothing of it free.

    `seal()` makes it read-only. Skips the test where this user may not mount.
    """
    folder.mkdir(exist_ok=True)
    prelude = (
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "disk = Path(sys.argv[1])\n"
        "def fill():\n"
        "    (disk / 'filler').write_bytes(bytes(max(0, os.statvfs(disk).f_bavail) * os.statvfs(disk).f_frsize))\n"
        "def seal():\n"
        "    subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)\n"
    )
    inner = [str(folder), sys.executable, "-c", prelude + code, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_TESTS), str(_TESTS.parent)])}
    mountable = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
    if mountable.returncode:
        pytest.skip("this user may not mount a file system of its own")
    command = ["unshare", "-m", "sh", "-c", _MOUNT, "sh", size, *inner]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
