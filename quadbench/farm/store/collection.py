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
