"""Open a store given by a folder, a URL or an environment variable. The module needs the pip extra `farm`."""

import os
import re
from configparser import ConfigParser
from configparser import Error as ConfigError
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quadbench.errors import UserError, quote, requires_extra
from quadbench.farm.store.objects import MARKER, Marker, Store
from quadbench.farm.store.place import Place
from quadbench.spec import variable
from quadbench.spec.variables import mask_url, path_variable, refuse_like_url, secret_variable, variables_of, web_address_of

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

STORE_VARIABLE = "QUADBENCH_STORE"

Source = str | Path  # a folder's path, or a URL as s3://BUCKET/PREFIX

_PROTOCOLS = ("s3", "gs", "az")
_EXPECTED = "a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
_BUCKET = re.compile(r"[^/?#@:\[\]]+(/[^?#]*)?")
_CLIENT: "ClientConfig" = {"allow_http": True, "connect_timeout": "5s", "read_timeout": "20s", "timeout": "10m"}
_RETRIES: "RetryConfig" = {"max_retries": 1, "retry_timeout": timedelta(minutes=1)}

# AWS's variables, and the keys of its files that replace them if none of the variables is set.
_KEYS = (("AWS_ACCESS_KEY_ID",), ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"))
_REGION = (("AWS_REGION", "AWS_DEFAULT_REGION"), ("region",))
_ENDPOINT = (("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), ("endpoint_url",))


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
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use ~/.aws; AWS_ENDPOINT_URL_S3 names another service"
            raise UserError(f"the store '{name}' has more, or less, than {protocol}://BUCKET/PREFIX", hint=hint)
    with requires_extra("farm"):
        from obstore.store import LocalStore, from_url
    if is_folder:
        folder = Path(text.removeprefix("file://"))
        return Place(_name(text), lambda: LocalStore(folder), folder)
    config: Any = _aws_settings() if text.startswith("s3://") else None
    literal = text.replace("%", "%25")  # from_url reads %20 as a space
    return Place(_name(text), lambda: from_url(literal, config=config, client_options=_CLIENT, retry_config=_RETRIES))


def _name(text: str) -> str:
    return mask_url(text) if "://" in text or not text else str(Path(text))


def _aws_settings() -> dict[str, str]:
    """Return a dict of obstore settings (credentials, region, endpoint) from AWS's configuration files. Omit settings that
    environment variables contain, because obstore reads the variables itself. Raise UserError if a variable is not a line of
    text, a file cannot be read, its profile has no key, or the endpoint's address is invalid.
    """
    for name, text in variables_of("AWS_").items():
        if not text.isprintable() or (name in _ENDPOINT[0] and not text):
            what = "has characters that are not printable" if text else "is empty"  # obstore panics at either
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
    sections = [section for section in (f"profile {profile}", profile) if section in parser]
    said = {word: value for section in sections for word, value in parser[section].items()}
    settings = {
        word: said[word]
        for variables, words in (_KEYS, _REGION, _ENDPOINT)
        if not any(secret_variable(name) for name in variables)
        for word in words
        if word in said
    }
    if variable("AWS_PROFILE") and not (secret_variable(_KEYS[0][0]) or _KEYS[1][0] in settings):
        hint = f'eval "$(aws configure export-credentials --profile {profile} --format env)"'
        raise UserError(f"the AWS profile {quote(profile)} has no key in '{files[0]}' or '{files[1]}'", hint=hint)
    for name in _ENDPOINT[0]:
        web_address_of(name, variable(name))
    web_address_of("AWS_ENDPOINT_URL", settings.get("endpoint_url"))
    return settings
