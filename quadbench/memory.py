"""Memory: the most that this process has held."""

from pathlib import Path


def peak_memory_bytes() -> int:
    """Resident, this process's own (Linux). `getrusage` would start with the parent's, whose maximum outlives exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024  # it counts in KiB
