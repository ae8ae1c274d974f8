"""Opening: a folder's path or a URL, or the variable that holds one -> a store that is reached."""

import os
from pathlib import Path

from quadbench.errors import UserError
from quadbench.farm.store.folder import FolderPlace
from quadbench.farm.store.keys import MARKER
from quadbench.farm.store.objects import Marker, Store
from quadbench.farm.store.place import StorePlace
from quadbench.farm.store.remote import RemotePlace
from quadbench.spec import variable
from quadbench.spec.variables import masked, refuse_like_url

STORE_VARIABLE = "QUADBENCH_STORE"

Source = str | Path  # a folder's path, or a URL as s3://BUCKET/PREFIX


def store_of() -> Source | None:
    """Return where artifacts and files of launches are shared: the folder or URL in $QUADBENCH_STORE; None where it is not set.

    Raises:
        UserError: the variable holds what is no text.
    """
    return variable(STORE_VARIABLE)


def required_store() -> Store:
    """Open the store that $QUADBENCH_STORE names.

    Raises:
        UserError: the variable is not set.
        UserError, StorageError, ArtifactError, MissingDependencyError: as `open_store`.
    """
    if (source := store_of()) is None:
        raise UserError("no store is named", hint=f"export {STORE_VARIABLE}=/a/folder, or s3://BUCKET/PREFIX; see docs/farm.md")
    return open_store(source)


def open_store(source: Source) -> Store:
    """Open a store. Where there is none yet, in a folder or bucket that is there, the first that is sent makes it.

    Raises:
        UserError: the URL names no place, or its protocol is not known or only reads; or the folder has files and is no store.
        StorageError: it is not reached, is not there, or may not be read.
        ArtifactError: it is one of a newer quadbench.
        MissingDependencyError: a URL without the extra `farm`, or without what its protocol needs.
    """
    place = _place(source)
    store = Store(place)
    if store.document(MARKER, Marker) is None and isinstance(place, FolderPlace) and (other := place.first()):
        raise UserError(
            f"'{store.name}' is no store, as it has no {MARKER} and holds '{other}'",
            hint="name an empty folder, which becomes a store with the first that is sent",
        )
    return store


def _place(source: Source) -> StorePlace:
    text = os.fspath(source)
    if "://" not in text:
        refuse_like_url(text, "the store", "a folder or s3://BUCKET/PREFIX")
    if text.startswith("file://") and not text.startswith("file:///"):
        raise UserError(f"the store '{masked(text)}' names no folder of this machine; expected file:///FOLDER")
    if text.startswith("file://"):
        return FolderPlace(Path(text.removeprefix("file://")))
    if text.startswith(("http://", "https://")):
        raise UserError(
            "a store cannot be reached by HTTP, which only reads", hint="s3://BUCKET/PREFIX, for one; see docs/farm.md"
        )
    return RemotePlace(text) if "://" in text else FolderPlace(Path(text))
