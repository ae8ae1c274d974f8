"""Send the files of launches to a store, and fetch them on another host."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts import FileRef, RunRecord, Variant
from quadbench.artifacts.safe_text import check_file_name, check_relative_path
from quadbench.errors import ArtifactError, NotStoredError, StorageError, UserError, quote
from quadbench.farm.store.keys import launch_key, run_prefix
from quadbench.farm.store.objects import LaunchEntry, Sending, Sent, Store, checked_files
from quadbench.results.digests import sha256_of
from quadbench.results.disk import storage_errors
from quadbench.results.layout import Layout
from quadbench.results.manifest import file_ref

_DEPTH = 3  # slashes in runs/RUN/DEVICE/VARIANT-LAUNCH
_NUMBER = re.compile(r"[0-9]{1,9}")
_MOST_FILE_BYTES = 2**28  # eight times the largest image, and above the limit of the event log


@dataclass(frozen=True, kw_only=True)
class FetchedRun:
    """A fetched run: counts of complete launches and of downloaded files and bytes, and an error message per failed launch."""

    launches: int
    files: int
    fetched_bytes: int
    refused: tuple[str, ...]


def send_launch(record: RunRecord, layout: Layout, store: Store) -> Sent:
    """Send the files in a launch's folder (images, plan, events) to a store. Return the numbers of files and bytes sent.
    If the folder has no files, send nothing.

    Raises:
        ArtifactError: a file has an invalid name, or is too large.
        StorageError: the store, or the results folder, cannot be used.
    """
    folder = layout.launch(record.run_id, record.device.address, record.variant, record.launch)
    with storage_errors(layout.root):
        refs = [file_ref(folder, path) for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if not refs:
        return Sent()
    files = _checked(refs, f"'{folder}'")
    sending = Sending(store)
    for file in files:
        sending.file(folder / file.path, file)
    store.write(launch_key(layout.relative(folder)), LaunchEntry(run_id=record.run_id, files=files))
    return sending.sent


def fetch_run(run_id: str, layout: Layout, store: Store) -> FetchedRun:
    """Fetch the files of a run's launches into the results folder, except intact local files. A launch that fails does not
    stop the others. Return counts of launches, files and bytes, and an error message for each launch that failed.

    Raises:
        UserError: the run id is not a valid folder name.
        NotStoredError: the store has no launch of this run.
        StorageError: the store, or the results folder, cannot be used.
    """
    try:
        prefix = run_prefix(check_file_name(run_id))
    except ValueError as error:
        raise UserError(f"no run has this id: {error}") from error
    keys = [listed.key for listed in store.place.listed(prefix)]
    if not keys:
        raise NotStoredError(
            f"the store '{store.name}' has no launch of run {run_id}", hint="its hosts send launches as they end"
        )
    arrived: list[FileRef] = []
    refused: list[str] = []
    for key in keys:
        try:
            arrived += _fetch_launch(key, run_id, layout, store)
        except StorageError:
            raise
        except ArtifactError as error:
            refused.append(f"'{key}': {error.message}")
    return FetchedRun(
        launches=len(keys) - len(refused),
        files=len(arrived),
        fetched_bytes=sum(file.size_bytes for file in arrived),
        refused=tuple(refused),
    )


def _fetch_launch(key: str, run_id: str, layout: Layout, store: Store) -> list[FileRef]:
    """Fetch a launch's missing or damaged files into its local folder. Return a list of the files fetched."""
    folder = _folder_of(key, layout)
    entry = store.document(key, LaunchEntry)
    if entry is None:
        raise NotStoredError(f"the store '{store.name}' has it no more")
    if entry.run_id != run_id:
        raise ArtifactError(f"it is of run {quote(entry.run_id)}, expected {quote(run_id)}")
    missing = [file for file in _checked(entry.files, "it") if not _is_here(folder / file.path, file)]
    try:
        with storage_errors(layout.root):
            for file in missing:
                store.fetch(file, folder / file.path)
    except OSError as error:  # for example a folder in place of the file
        raise ArtifactError(f"its files cannot be written to '{folder}': {error.strerror}") from error
    return missing


def _folder_of(key: str, layout: Layout) -> Path:
    """Return a launch's local folder from its key in the store. Raise ArtifactError if the key is not that of a launch."""
    try:
        folder = check_relative_path(key.removesuffix(".json"))
    except ValueError as error:
        raise ArtifactError(str(error)) from error
    variant, _, launch = folder.rpartition("/")[2].rpartition("-")
    if (
        launch_key(folder) != key
        or folder.count("/") != _DEPTH
        or variant not in set(map(str, Variant))
        or not _NUMBER.fullmatch(launch)
    ):
        raise ArtifactError("no launch has such a key; expected one as runs/RUN/DEVICE/shared-0.json")
    return layout.root / folder


def _checked(files: Iterable[FileRef], name: str) -> tuple[FileRef, ...]:
    """Return a launch's files as a tuple after checking their number, sizes and paths. Raise ArtifactError if a check fails."""
    checked = checked_files(files, name)
    for file in checked:
        if file.size_bytes > _MOST_FILE_BYTES:
            raise ArtifactError(f"{name}: '{file.path}' has {file.size_bytes} bytes, expected at most {_MOST_FILE_BYTES}")
    return checked


def _is_here(path: Path, file: FileRef) -> bool:
    try:
        return path.stat().st_size == file.size_bytes and sha256_of(path) == file.sha256
    except OSError:
        return False
