"""Digests: files and JSON values -> the sha256 in hex by which artifacts and their files are named."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from quadbench.spec.files import open_regular

MOST_BYTES = 2**36  # of a file that is read whole: ten times the weights of Stable Diffusion in float32


def sha256_of(path: Path) -> str:
    """Return the digest of a regular file's content.

    Raises:
        OSError: there is no such file, it is a pipe, a device or a folder, or larger than anything that belongs to a model.
    """
    with open_regular(path) as file:
        if (size_bytes := os.fstat(file.fileno()).st_size) > MOST_BYTES:
            raise OSError(errno.EINVAL, f"it has {size_bytes} bytes; expected at most {MOST_BYTES}", str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(parts: dict[str, Any]) -> str:
    """Return one digest of inputs that are given as JSON values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def folder_digests(folder: Path, pattern: str = "*") -> dict[str, str]:
    """Return the digest of every file below the folder that matches, by its path relative to the folder."""
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob(pattern)) if path.is_file()}
