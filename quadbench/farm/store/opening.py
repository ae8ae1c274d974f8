"""Open a store given by a folder, a URL or an environment variable. The module needs the pip extra `farm`."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from quadbench.errors import UserError, requires_extra
from quadbench.farm.store.objects import MARKER, Marker, Store
from quadbench.farm.store.place import Place
from quadbench.spec import variable
from quadbench.spec.variables import mask_url, refuse_like_url

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

STORE_VARIABLE = "QUADBENCH_STORE"

Source = str | Path  # a folder's path, or a URL as s3://BUCKET/PREFIX

_PROTOCOLS = ("s3", "gs", "az")
_EXPECTED = "a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
_BUCKET = re.compile(r"[^/?#@:\[\]]+(/[^?#]*)?")
_CLIENT: "ClientConfig" = {"allow_http": True, "connect_timeout": "5s", "read_timeout": "20s", "timeout": "10m"}
_RETRIES: "RetryConfig" = {"max_retries": 1, "retry_timeout": timedelta(minutes=1)}


def required_store() -> Store:
    """Open the store that $QUADBENCH_STORE names, as `open_store`. Raise UserError also if the variable is not set."""
    if (source := variable(STORE_VARIABLE)) is None:
        raise UserError("no store is named", hint=f"export {STORE_VARIABLE}=/a/folder, or s3://BUCKET/PREFIX; see docs/farm.md")
    return open_store(source)


def store_name() -> str:
    """Return what `Store.name` is of the store that $QUADBENCH_STORE names, or "" if it names none. The store is not opened."""
    return _name(variable(STORE_VARIABLE) or "")


def open_store(source: Source) -> Store:
    """Open the store in a folder or at a URL. An empty folder or bucket becomes a store when something is first sent.

    Raises:
        UserError: the URL is invalid, its protocol is unknown, or the folder has files and is not a store.
        StorageError: it cannot be reached, does not exist, or may not be read.
        ArtifactError: it belongs to a newer quadbench.
        MissingDependencyError: the extra `farm` is not installed.
    """
    place = _place(source)
    store = Store(place)
    if store.document(MARKER, Marker) is None:
        place.listed(MARKER)  # only this request distinguishes a missing bucket from an empty one
        if other := place.first():
            hint = "name an empty folder, which becomes a store with the first that is sent"
            raise UserError(f"'{store.name}' is no store, as it has no {MARKER} and holds '{other}'", hint=hint)
    return store


def _place(source: Source) -> Place:
    text = os.fspath(source)
    if "://" not in text:
        refuse_like_url(text, "the store", "a folder or s3://BUCKET/PREFIX")
    if text.startswith("file://") and not text.startswith("file:///"):
        raise UserError(f"the store '{mask_url(text)}' names no folder of this machine; expected file:///FOLDER")
    is_folder = "://" not in text or text.startswith("file://")
    if not is_folder:
        name = mask_url(text).replace("***@", "").removesuffix("?***")  # without credentials
        protocol, _, rest = text.partition("://")
        if protocol not in _PROTOCOLS:
            raise UserError(f"the store '{name}' has an unknown protocol; expected {_EXPECTED}")
        if not _BUCKET.fullmatch(rest) or any(part in (".", "..") for part in rest.split("/")):
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; AWS_ENDPOINT_URL_S3 names another service"
            raise UserError(f"the store '{name}' has more, or less, than {protocol}://BUCKET/PREFIX", hint=hint)
    with requires_extra("farm"):
        from obstore.store import LocalStore, from_url
    if is_folder:
        folder = Path(text.removeprefix("file://"))
        return Place(_name(text), lambda: LocalStore(folder), folder)
    literal = text.replace("%", "%25")  # from_url reads %20 as a space
    return Place(_name(text), lambda: from_url(literal, client_options=_CLIENT, retry_config=_RETRIES))


def _name(text: str) -> str:
    return mask_url(text) if "://" in text or not text else str(Path(text))
