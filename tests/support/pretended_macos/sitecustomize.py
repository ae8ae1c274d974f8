"""Make each Python process believe that it runs on macOS. The folder of this file on PYTHONPATH does it for child processes too.

What macOS lacks is taken away: functions of `os`, prctl, malloc_trim and, for quadbench alone, /proc. Modules that would load
macOS's own parts are imported before, as the pretence is about quadbench, not about Python. `platform.system()` stays as it is:
torch loads its libraries by it.
"""

import contextlib
import ctypes
import ctypes.util
import multiprocessing.util
import os
import signal
import subprocess
import sys
import sysconfig
import urllib.request
import uuid
import webbrowser
from pathlib import Path

LACKS = (
    *("O_PATH", "close_range", "memfd_create", "pidfd_open", "sched_getaffinity", "sched_setaffinity", "setns"),
    *("eventfd", "posix_fadvise", "posix_fallocate", "splice", "unshare"),
)
"""Names of `os` that Python has on Linux and not on macOS."""
LIBRARY_LACKS = ("prctl", "malloc_trim", "setns", "unshare")


class Library(ctypes.CDLL):
    """A C library without the functions that are Linux's own."""

    def __getattr__(self, name: str):
        if name in LIBRARY_LACKS:
            raise AttributeError(f"dlsym({name}): symbol not found")
        return super().__getattr__(name)


class Uname(tuple):
    """The fields of `os.uname()` on a Mac."""

    sysname, nodename, release, version, machine = (property(lambda self, place=place: self[place]) for place in range(5))


def hide_proc(event: str, arguments: tuple) -> None:
    """Let quadbench find no /proc (an audit hook). Libraries that are built for Linux read it, and so may tests."""
    if event not in ("open", "os.listdir", "os.scandir") or not str(arguments[0]).startswith("/proc"):
        return
    frame = sys._getframe(1)
    while frame and frame.f_code.co_filename.startswith((*_LIBRARY, "<")):
        frame = frame.f_back
    if frame and frame.f_code.co_filename.startswith(_PACKAGE):
        raise FileNotFoundError(2, "No such file or directory", str(arguments[0]))


for name in LACKS:
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGSTKFLT"):
    if hasattr(signal, name):
        delattr(signal, name)
ctypes.CDLL = Library
host = os.uname().nodename
os.uname = lambda: Uname(("Darwin", host, "25.0.0", "Darwin Kernel Version 25.0.0", "x86_64"))
sysconfig.get_config_vars()
_loaded = (multiprocessing, subprocess, urllib, uuid, webbrowser)
with contextlib.suppress(ImportError):
    import psutil  # noqa: F401
_LIBRARY = (sysconfig.get_path("stdlib"),)
_PACKAGE = str(Path(__file__).parents[3] / "quadbench")
sys.addaudithook(hide_proc)
sys.platform = "darwin"
