"""Opening: a folder's path or a URL, or the variable that holds one -> a store that is reached. Needs the extra `farm`."""

import os
from configparser import ConfigParser
from configparser import Error as ConfigError
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from quadbench.errors import UserError, extra_needed, shown
from quadbench.farm.store.keys import MARKER
from quadbench.farm.store.objects import Marker, Store
from quadbench.farm.store.place import Place
from quadbench.spec import variable
from quadbench.spec.variables import masked, path_variable, refuse_like_url, secret_variable, variables_of, web_address_of

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

STORE_VARIABLE = "QUADBENCH_STORE"

Source = str | Path  # a folder's path, or a URL as s3://BUCKET/PREFIX

_PROTOCOLS = ("s3", "gs", "az")
_EXPECTED = "a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
_CLIENT: "ClientConfig" = {"allow_http": True, "connect_timeout": "5s", "read_timeout": "20s", "timeout": "10m"}
_RETRIES: "RetryConfig" = {"max_retries": 1, "retry_timeout": timedelta(minutes=1)}

# Of AWS, the variables that say something, and the words of its files that do where none of them is set.
_KEYS = (("AWS_ACCESS_KEY_ID",), ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"))
_REGION = (("AWS_REGION", "AWS_DEFAULT_REGION"), ("region",))
_ENDPOINT = (("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), ("endpoint_url",))


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
        UserError: the URL names no place, or its protocol is not known; or the folder has files and is no store.
        StorageError: it is not reached, is not there, or may not be read.
        ArtifactError: it is one of a newer quadbench.
        MissingDependencyError: the extra `farm` is not installed.
    """
    place = _place(source)
    store = Store(place)
    if store.document(MARKER, Marker) is None:
        place.listed(MARKER)  # a bucket that is not there answers this alone in another way than an empty one
        if other := place.first():
            raise UserError(
                f"'{store.name}' is no store, as it has no {MARKER} and holds '{other}'",
                hint="name an empty folder, which becomes a store with the first that is sent",
            )
    return store


def _place(source: Source) -> Place:
    text = os.fspath(source)
    if "://" not in text:
        refuse_like_url(text, "the store", "a folder or s3://BUCKET/PREFIX")
    if text.startswith("file://") and not text.startswith("file:///"):
        raise UserError(f"the store '{masked(text)}' names no folder of this machine; expected file:///FOLDER")
    is_folder = "://" not in text or text.startswith("file://")
    if not is_folder:
        _check_url(text)
    with extra_needed("farm"):
        from obstore.store import LocalStore, from_url
    if is_folder:
        folder = Path(text.removeprefix("file://"))
        return Place(masked(text) if "://" in text else str(folder), lambda: LocalStore(folder), folder)
    config: Any = _aws_settings() if text.startswith("s3://") else None
    literal = text.replace("%", "%25")  # from_url reads %20 as a space
    return Place(text, lambda: from_url(literal, config=config, client_options=_CLIENT, retry_config=_RETRIES))


def _check_url(url: str) -> None:
    """Refuse what is no URL of one place, or holds credentials.

    Raises:
        UserError: it does; the message shows none of them.
    """
    name = masked(url).replace("***@", "").removesuffix("?***")
    protocol, _, rest = url.partition("://")
    if protocol not in _PROTOCOLS:
        raise UserError(f"the store '{name}' has an unknown protocol; expected {_EXPECTED}")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError("the store's URL cannot be read", hint="expected one as s3://BUCKET/PREFIX") from error
    is_plain = not any(part in (".", "..") for part in rest.split("/"))
    if not (parts.netloc and is_plain) or any(mark in parts.netloc for mark in "@:") or any(mark in rest for mark in "?#"):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use ~/.aws; AWS_ENDPOINT_URL_S3 names another service"
        raise UserError(f"the store '{name}' has more, or less, than {protocol}://BUCKET/PREFIX", hint=hint)


def _aws_settings() -> dict[str, str]:
    """Return what AWS's files say and its variables do not, of which obstore reads the variables alone.

    Raises:
        UserError: a variable is no line of text, a file cannot be read, its profile has no key, or the address of another
            service is none.
    """
    for name, text in variables_of("AWS_").items():
        if not text.isprintable() or (name in _ENDPOINT[0] and not text):
            what = "has characters that are not printable" if text else "is empty"  # at either of which obstore panics
            raise UserError(f"${name} {what}; expected a line of text", hint=f"set it anew, or unset {name}")
    files = [
        path_variable("AWS_CONFIG_FILE") or Path("~/.aws/config").expanduser(),
        path_variable("AWS_SHARED_CREDENTIALS_FILE") or Path("~/.aws/credentials").expanduser(),
    ]
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(files, encoding="utf-8")
    except (ConfigError, OSError, UnicodeError) as error:
        raise UserError(f"'{files[0]}' or '{files[1]}' cannot be read as AWS's settings") from error
    profile = variable("AWS_PROFILE") or "default"
    said: dict[str, str] = {}
    for section in (f"profile {profile}", profile):
        said |= dict(parser[section]) if section in parser else {}
    settings = {
        word: said[word]
        for variables, words in (_KEYS, _REGION, _ENDPOINT)
        if not any(secret_variable(name) for name in variables)
        for word in words
        if word in said
    }
    if variable("AWS_PROFILE") and not (secret_variable(_KEYS[0][0]) or _KEYS[1][0] in settings):
        hint = f'eval "$(aws configure export-credentials --profile {profile} --format env)"'
        raise UserError(f"the AWS profile {shown(profile)} has no key in '{files[0]}' or '{files[1]}'", hint=hint)
    for name in _ENDPOINT[0]:
        web_address_of(name, variable(name))
    web_address_of("AWS_ENDPOINT_URL", settings.get("endpoint_url"))
    return settings
