"""Memory: the most that this process has held; what it has freed, given back."""

import ctypes
from pathlib import Path


def peak_memory_bytes() -> int:
    """Resident, this process's own (Linux). `getrusage` would start with the parent's, whose maximum outlives exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024  # it counts in KiB


def give_back() -> None:
    """Have the C library return to the system what was freed: glibc keeps it, gigabytes of it after a large graph."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)
