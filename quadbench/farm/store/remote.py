"""Remote: a URL that fsspec takes, as s3://bucket/prefix -> a place. Needs the extra `farm`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from quadbench.errors import MissingDependencyError, StorageError, UserError, extra_needed, shown
from quadbench.farm.store.place import Listed
from quadbench.spec.variables import masked, masked_in

_BLOCK_BYTES = 2**24
_NO_CACHE = {"use_listings_cache": False, "skip_instance_cache": True}
_S3_OPTIONS = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 0}}}
_S3_TRIES = 2  # of a request; s3fs counts them, botocore adds none
_MOST_CHARACTERS = 200  # of what a library says; some quote whole pages
_TIMES = ("LastModified", "mtime", "last_modified", "modified", "updated", "created")  # each protocol has its own word
_HINT = "see that $QUADBENCH_STORE is right, and the credentials, which S3 takes from AWS's variables and files"


class RemotePlace:
    """The files below a URL. Secrets in the URL are left out wherever it is named."""

    def __init__(self, url: str) -> None:
        protocol = url.partition("://")[0]
        self._secrets, self.name = _without_secrets(url, protocol)
        with extra_needed("farm"):
            import fsspec
        options = _NO_CACHE | (_S3_OPTIONS if protocol == "s3" else {})
        try:
            fsspec.get_filesystem_class(protocol)
        except ValueError as error:
            known = f"a folder, s3://BUCKET/PREFIX or another protocol of fsspec, found {shown(protocol)}"
            raise UserError(f"the store '{self.name}' has an unknown protocol; expected {known}") from error
        except ImportError as error:
            hint = "pip install 'quadbench[farm]'" if protocol == "s3" else str(error)
            raise MissingDependencyError(f"the store '{self.name}' needs a package that is not installed", hint=hint) from error
        with self._told():
            self._files, root = fsspec.core.url_to_fs(url, **options)
        self._root = root.rstrip("/")
        if protocol == "s3":
            self._files.retries = _S3_TRIES

    def look(self, key: str) -> Listed | None:
        """Return what is known of a file without reading it; None where there is none.

        Raises:
            StorageError: the place is not reached, or refuses.
        """
        with self._told():
            try:
                facts = self._files.info(self._path(key))
            except FileNotFoundError as error:
                if "bucket does not exist" in str(error):
                    raise
                return None
            return self._listed(self._path(key), facts) if facts["type"] == "file" else None

    def listed(self, prefix: str) -> list[Listed]:
        """Return every file below a prefix.

        Raises:
            StorageError: the place is not reached, or refuses.
        """
        with self._told():
            files = self._files.find(self._path(prefix), detail=True)
            return [self._listed(path, facts) for path, facts in files.items() if facts["type"] == "file"]

    def read(self, key: str, size_bytes: int) -> Iterator[bytes]:
        """Yield the first bytes of a file, no more than asked for, in blocks.

        Raises:
            StorageError: the place is not reached, or refuses.
        """
        for start in range(0, size_bytes, _BLOCK_BYTES):
            with self._told():
                block = self._files.cat_file(self._path(key), start=start, end=min(start + _BLOCK_BYTES, size_bytes))
            yield block

    def put(self, key: str, content: Path | bytes) -> None:
        """Write a file; one at S3 appears whole or not at all.

        Raises:
            StorageError: the place is not reached, or refuses.
        """
        with self._told():
            if isinstance(content, Path):
                self._files.put_file(str(content), self._path(key))
            else:
                self._files.pipe_file(self._path(key), content)

    def remove(self, key: str) -> None:
        """Remove a file, which need not be there.

        Raises:
            StorageError: the place is not reached, or refuses.
        """
        with self._told():
            try:
                self._files.rm_file(self._path(key))
            except FileNotFoundError:
                return

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _listed(self, path: str, facts: dict[str, Any]) -> Listed:
        modified = next((facts[word] for word in _TIMES if word in facts), None)
        if isinstance(modified, int | float):
            modified = datetime.fromtimestamp(modified, UTC)
        if not isinstance(modified, datetime):
            raise StorageError(f"the store '{self.name}' does not say when its files were written", hint="take S3, or a folder")
        modified = modified if modified.tzinfo else modified.replace(tzinfo=UTC)
        return Listed(key=path.removeprefix(f"{self._root}/"), size_bytes=int(facts["size"]), modified_at=modified)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what fsspec, or any library below it, says in ways of its own into an error that names the place."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            reason = masked_in(" ".join(str(error).split())) or type(error).__name__
            if isinstance(error, ValueError) and reason.startswith("Port "):  # it quotes what may be part of a password
                reason = "what stands behind the colon of its host is no port"
            for secret in self._secrets:
                reason = secret.sub("***", reason)
            reason = reason[:_MOST_CHARACTERS].rstrip(".")
            raise StorageError(f"the store '{self.name}' cannot be used: {reason}", hint=_HINT) from error


def _without_secrets(url: str, protocol: str) -> tuple[list[re.Pattern[str]], str]:
    """Return the secrets in a URL as they may stand in a text, each as a word of its own, and the URL without them.

    Raises:
        UserError: it is no URL of one place, or holds secrets where its protocol has none.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError("the store's URL cannot be read", hint="expected one as s3://BUCKET/PREFIX") from error
    login, _, host = parts.netloc.rpartition("@")
    name = masked(url).replace("***@", "").removesuffix("?***")
    if not re.fullmatch(r"[a-z][a-z0-9+.-]{0,30}", protocol) or "::" in url:
        raise UserError(f"the store '{name}' has no protocol of one place", hint="expected one as s3://BUCKET/PREFIX")
    if protocol == "s3" and (login or parts.query or ":" in host or not host):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use ~/.aws; AWS_ENDPOINT_URL_S3 names another service"
        raise UserError(f"the store '{name}' has more, or less, than s3://BUCKET/PREFIX", hint=hint)
    written = {login, login.partition(":")[2], parts.query, *(value for _, value in parse_qsl(parts.query))}
    secrets = sorted(filter(None, written | {unquote(secret) for secret in written}), key=len, reverse=True)
    return [re.compile(rf"(?<!\w){re.escape(secret)}(?!\w)") for secret in secrets], name
