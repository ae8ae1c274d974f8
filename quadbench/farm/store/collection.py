"""Garbage collection of a store: files that nothing needs are first marked, and removed at least a day later.

A sender may rely on an object that no entry refers to yet, so garbage is first only marked (condemned). Senders send condemned
objects again, which renews their age. A file is removed if it is old, was condemned for a day and is still unreferenced. Host
clocks may differ by less than that day. Unfinished uploads are removed when they are a day old.

All functions raise StorageError if the store cannot be reached or refuses.
"""

from collections.abc import Collection, Iterable, Iterator, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from quadbench.artifacts import FileRef
from quadbench.artifacts.run_record import file_refs
from quadbench.errors import ArtifactError, StorageError
from quadbench.farm.store.artifacts import KINDS, described
from quadbench.farm.store.objects import ARTIFACTS, CONDEMNED, OBJECTS, RUNS, Condemned, LaunchEntry, Store, object_key
from quadbench.farm.store.place import Listed

GRACE_S = 86_400.0  # longer than any upload takes
_MOST_CONDEMNED = 50_000  # at a time; later collections handle the rest


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A garbage collection's result, or a dry run's forecast: keys and total bytes of files removed, and of files marked."""

    removed: tuple[str, ...]
    removed_bytes: int
    condemned: tuple[str, ...]
    condemned_bytes: int


def collect(
    store: Store,
    keep_s: float,
    *,
    keep: Collection[str] = (),
    referred: Set[str] = frozenset(),
    grace_s: float = GRACE_S,
    is_dry_run: bool = False,
) -> Collected:
    """Mark a store's garbage for removal, and remove garbage marked `grace_s` seconds ago or earlier. Return the keys of both.
    Garbage is artifacts and runs older than `keep_s` seconds, and file contents that no kept artifact or run lists.

    `keep` has digests and run ids, or their prefixes, to keep at any age; `referred` has those that are referred to elsewhere.

    Raises:
        ArtifactError: a damaged entry hides what it refers to; nothing was removed.
    """
    now = datetime.now(UTC)
    listed = [file for prefix in (ARTIFACTS, RUNS, OBJECTS) for file in store.place.listed(prefix)]
    old = now - timedelta(seconds=keep_s)
    named = set(_named(store, [file["path"] for file in listed if _is_kept(file, old, tuple(keep), referred)]))
    grace = timedelta(seconds=grace_s)
    unnamed = [file for file in listed if file["path"] not in named and now - file["last_modified"] >= grace]
    garbage = {file["path"]: file for file in unnamed[:_MOST_CONDEMNED]}
    before = store.condemned()
    since = {key: at for key, at in before.items() if key in garbage and garbage[key]["last_modified"] <= at}  # not sent again
    ripe = [file for key, file in garbage.items() if key in since and now - since[key] >= grace]
    cut_off = [file for file in store.place.cut_off() if now - file["last_modified"] >= grace]
    if not is_dry_run:
        ripe = [file for file in ripe if _removed(file, store)]
        for file in cut_off:
            store.place.remove(file["path"])
    removed = {file["path"]: file for file in (*ripe, *cut_off)}
    left = {key: file for key, file in garbage.items() if key not in removed}
    if not is_dry_run and (left or before):
        store.write(CONDEMNED, Condemned(keys={key: since.get(key, now) for key in left}))
    return Collected(
        removed=tuple(removed),
        removed_bytes=sum(file["size"] for file in removed.values()),
        condemned=tuple(left),
        condemned_bytes=sum(file["size"] for file in left.values()),
    )


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A store check's result: number and bytes of objects, error by faulty file's key, and keys of removed objects."""

    objects: int
    size_bytes: int
    faults: dict[str, str]
    removed: tuple[str, ...] = ()


def check(store: Store, *, is_removing: bool = False) -> Verified:
    """Hash all objects (file contents) in a store; find artifacts and runs that lack objects. Return a Verified (counts, errors).

    With `is_removing`, remove damaged objects, so that they can be sent again.
    """
    objects = store.place.listed(OBJECTS)
    damaged = {file["path"]: fault for file in objects if (fault := _fault(file, store))}
    if is_removing:
        for key in damaged:
            store.place.remove(key)
    there = {file["path"] for file in objects} - damaged.keys()
    entries = [file["path"] for prefix in (ARTIFACTS, RUNS) for file in store.place.listed(prefix)]
    faults = damaged | {key: fault for key in entries if (fault := _entry_fault(key, there, store))}
    size_bytes = sum(file["size"] for file in objects)
    return Verified(objects=len(objects), size_bytes=size_bytes, faults=faults, removed=tuple(damaged) if is_removing else ())


def _fault(file: Listed, store: Store) -> str | None:
    """Hash a stored object. Return an error message if its content does not match the sha256 in its key, or None if it does."""
    sha256 = file["path"].rpartition("/")[2]
    if file["path"] != object_key(sha256):
        return "is no object"
    try:
        for _ in store.blocks(FileRef(path=file["path"], sha256=sha256, size_bytes=file["size"])):
            pass
    except StorageError:
        raise
    except ArtifactError as error:
        return error.message
    return None


def _entry_fault(key: str, there: Collection[str], store: Store) -> str | None:
    """Return what is wrong with a stored artifact or run, such as a missing object, or None if nothing is wrong."""
    try:
        missing = [name for name in _named(store, [key]) if name.startswith(f"{OBJECTS}/") and name not in there]
    except StorageError:
        raise
    except ArtifactError as error:
        return error.message
    return f"misses {len(missing)} of its objects, as {missing[0]}" if missing else None


def _named(store: Store, keys: Iterable[str]) -> Iterator[str]:
    """For each artifact's or launch's key, yield the key, then its objects' keys. Raise ArtifactError if an entry is damaged."""
    for key in keys:
        yield key
        files: Iterable[FileRef] = ()
        match key.split("/"):
            case ["artifacts", kind, name] if kind in KINDS:
                manifest, artifact = described(kind, name.removesuffix(".json"), store)
                files = (manifest, *file_refs(artifact))
            case ["runs", *_]:
                launch = store.document(key, LaunchEntry)
                files = launch.files if launch else ()
        yield from (object_key(file.sha256) for file in files)


def _is_kept(file: Listed, old: datetime, keep: tuple[str, ...], referred: Set[str]) -> bool:
    """Return True if a run or artifact is newer than `old`, or its id or digest is in `referred` or starts with a `keep` item."""
    match file["path"].removesuffix(".json").split("/"):
        case ["artifacts", _, name] | ["runs", name, *_]:
            return file["last_modified"] > old or name in referred or name.startswith(keep)
    return False


def _removed(file: Listed, store: Store) -> bool:
    """Remove a listed file from a store and return True. Return False if it is gone or was uploaded again since the listing."""
    latest = store.place.look(file["path"])
    if latest is None or latest["last_modified"] > file["last_modified"] + timedelta(seconds=1):  # listings may be more precise
        return False
    store.place.remove(file["path"])
    return True
