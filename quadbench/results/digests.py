"""Compute SHA-256 digests of files, of JSON values, and of the source code of quadbench modules with all their imports."""

import ast
import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from quadbench.artifacts import Bundle
from quadbench.artifacts.run_record import file_refs
from quadbench.errors import UserError
from quadbench.spec.files import open_regular

_MAX_FILES = 500  # files of a model or an adapter; Stable Diffusion 1.5 has about twenty
MAX_BYTES = 2**36  # for files that are read completely: ten times the weights of Stable Diffusion in float32
PACKAGE = Path(__file__).parents[1]
_PARSING = threading.Lock()  # Python 3.11 fails with a SystemError if two threads parse at once


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a regular file's content in hexadecimal digits.

    Raises:
        OSError: the file is missing, not a regular file, or larger than any file of a model.
    """
    with open_regular(path) as file:
        if (size_bytes := os.fstat(file.fileno()).st_size) > MAX_BYTES:
            raise OSError(errno.EINVAL, f"the file has {size_bytes} bytes; expected at most {MAX_BYTES}", str(path))
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:  # a read error carries no path
            raise OSError(error.errno, error.strerror, str(path)) from error


def digest_of(parts: dict[str, Any]) -> str:
    """Return the SHA-256, in hex, of a dict of JSON values; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """Return a dict from the path of each file below a folder, relative to the folder, to the file's SHA-256 in hex."""
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def file_digests(files: Mapping[str, Path]) -> dict[str, str]:
    """Return a dict from each name in `files` to its file's SHA-256. Raise UserError for more than 500 files or 64 GiB.

    Raises:
        OSError: a file cannot be read.
        UserError: there are more files, or larger ones, than in any model.
    """
    expected = f"at most {_MAX_FILES} files with {MAX_BYTES} bytes"
    if len(files) > _MAX_FILES:
        raise UserError(f"'{next(iter(files.values()))}' and the files beside it are {len(files)} files; expected {expected}")
    sizes = {path: path.stat().st_size for path in files.values()}
    if sum(sizes.values()) > MAX_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise UserError(f"'{largest}' and the files beside it have {sum(sizes.values())} bytes; expected {expected}")
    return {name: sha256_of(path) for name, path in sorted(files.items())}


def content_digest(bundle: Bundle) -> str:
    """Return the SHA-256 digest, in hex, of the paths and contents of all files of a bundle. Equal files give equal digests."""
    files = sorted((file.path, file.sha256) for file in file_refs(bundle))
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


@cache
def code_digests(module: str) -> dict[str, str]:
    """Return the SHA-256 of the sources of a quadbench module and of all modules that it imports, keyed by module name.

    `module` is a dotted name, as `quadbench.quad.build`. Nothing is imported: the sources are read. Code under `if
    TYPE_CHECKING` never runs and is ignored. So are packages that merely contain an imported module, since importing them does
    nothing.

    Raises:
        ModuleNotFoundError: quadbench has no such module.
    """
    pending, sources = [module], dict[str, Path]()
    while pending:
        name = pending.pop()
        if name in sources:
            continue
        sources[name] = _source(name)
        pending += [imported for imported in _imported(sources[name]) if imported not in sources]
    return {name: sha256_of(path) for name, path in sorted(sources.items())}


def _source(name: str) -> Path:
    place = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file():
            return path
    raise ModuleNotFoundError(f"quadbench has no module '{name}'", name=name)


def _is_module(name: str) -> bool:
    try:
        return name.split(".")[0] == PACKAGE.name and bool(_source(name))
    except ModuleNotFoundError:
        return False


@cache
def _imported(path: Path) -> tuple[str, ...]:
    """Return the dotted name of each quadbench module that a source file imports, except under `if TYPE_CHECKING`."""
    with _PARSING:
        tree = ast.parse(path.read_text())
    dotted: list[str] = []
    for node in _running(tree):
        match node:
            case ast.Import(names=names):
                dotted += [alias.name for alias in names]
            case ast.ImportFrom(module=str(package), names=names, level=0):
                dotted += [name if _is_module(name := f"{package}.{alias.name}") else package for alias in names]
    return tuple(name for name in dotted if name.split(".")[0] == PACKAGE.name)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a syntax tree node and its descendants, except the body of `if TYPE_CHECKING`, which never runs."""
    yield node
    is_typing = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    for child in node.orelse if isinstance(node, ast.If) and is_typing else ast.iter_child_nodes(node):
        yield from _running(child)
