"""Send the files of launches to a store, and fetch them on another host.

Both functions raise StorageError if the store, or the results folder, cannot be used.
"""

import re
from dataclasses import dataclass

from quadbench.artifacts import RunRecord, Variant
from quadbench.artifacts.safe_text import check_file_name
from quadbench.errors import ArtifactError, NotStoredError, StorageError, UserError, quote
from quadbench.farm.store.objects import RUNS, LaunchEntry, Sent, Store, checked_files, is_whole
from quadbench.results.disk import storage_errors
from quadbench.results.layout import Layout
from quadbench.results.manifest import file_ref

_KEY = re.compile(rf"(?P<folder>{RUNS}/[^/]+/[^/]+/({'|'.join(Variant)})-[0-9]{{1,9}})\.json")
_MOST_FILE_BYTES = 2**28  # eight times the largest image, and above the limit of the event log


@dataclass(frozen=True, kw_only=True)
class FetchedRun:
    """A fetched run: counts of complete launches and of downloaded files, and an error message per failed launch."""

    launches: int
    files: int
    refused: tuple[str, ...]


def send_launch(record: RunRecord, layout: Layout, store: Store) -> Sent:
    """Send the files in a launch's folder (images, plan, events) to a store. Return the numbers of files and bytes sent.
    If the folder has no files, send nothing. Raise ArtifactError if a file has an invalid name, or is too large.
    """
    folder = layout.launch(record.run_id, record.device.address, record.variant, record.launch)
    with storage_errors(layout.root):
        refs = [file_ref(folder, path) for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if not refs:
        return Sent()
    files = checked_files(refs, f"'{folder}'", _MOST_FILE_BYTES)
    sent = store.send((folder / file.path, file) for file in files)
    store.write(f"{layout.relative(folder)}.json", LaunchEntry(run_id=record.run_id, files=files))
    return sent


def fetch_run(run_id: str, layout: Layout, store: Store) -> FetchedRun:
    """Fetch the files of a run's launches into the results folder, except intact local files. A launch that fails does not
    stop the others. Return counts of launches, files and bytes, and an error message for each launch that failed.

    Raises:
        UserError: the run id is not a valid folder name.
        NotStoredError: the store has no launch of this run.
    """
    try:
        prefix = f"{RUNS}/{check_file_name(run_id)}/"
    except ValueError as error:
        raise UserError(f"no run has this id: {error}") from error
    keys = [listed["path"] for listed in store.place.listed(prefix)]
    if not keys:
        raise NotStoredError(f"the store '{store.name}' has no launch of run {run_id}", hint="hosts send launches as they end")
    files, refused = 0, list[str]()
    for key in keys:
        try:
            files += _fetch_launch(key, run_id, layout, store)
        except StorageError:
            raise
        except ArtifactError as error:
            refused.append(f"'{key}': {error.message}")
    return FetchedRun(launches=len(keys) - len(refused), files=files, refused=tuple(refused))


def _fetch_launch(key: str, run_id: str, layout: Layout, store: Store) -> int:
    """Fetch a launch's missing or damaged files into its local folder. Return their number."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise ArtifactError("no launch has such a key; expected one as runs/RUN/DEVICE/shared-0.json")
    try:
        folder = layout.file(match["folder"])
    except ValueError as error:
        raise ArtifactError(str(error)) from error
    entry = store.document(key, LaunchEntry)
    if entry is None:
        raise NotStoredError(f"the store '{store.name}' has it no more")
    if entry.run_id != run_id:
        raise ArtifactError(f"it is of run {quote(entry.run_id)}, expected {quote(run_id)}")
    files = checked_files(entry.files, "it", _MOST_FILE_BYTES)
    missing = [file for file in files if not is_whole(folder / file.path, file)]
    try:
        with storage_errors(layout.root):
            for file in missing:
                store.fetch(file, folder / file.path)
    except OSError as error:  # for example a folder in place of the file
        raise ArtifactError(f"its files cannot be written to '{folder}': {error.strerror}") from error
    return len(missing)
