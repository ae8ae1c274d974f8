"""Problems: an error of the client -> a ServiceError of one line, without token or signed addresses, that may pass or not."""

import re
from collections.abc import Sequence
from pathlib import Path

from quadbench.errors import ServiceError
from quadbench.spec import path_variable

CONFIGURE_HINT = "qai-hub configure --api_token TOKEN, with the token of your account page at the service"
CONFIG_VARIABLE = "QAIHUB_CLIENT_INI"  # the client's own
_UNAUTHORIZED, _NOT_FOUND, _RATE_LIMITED = 401, 404, 429


def config_path() -> Path:
    """Return the path of the client's configuration, which need not exist."""
    return (path_variable(CONFIG_VARIABLE) or Path("~/.qai_hub/client.ini")).expanduser()


def client_errors() -> tuple[type[Exception], ...]:
    """Return the classes of errors that the client raises: its own, and those of the libraries that it sends with."""
    import botocore.exceptions
    import qai_hub
    import requests
    import s3transfer.exceptions
    from qai_hub.public_rest_api import APIException

    return (
        qai_hub.Error,
        APIException,
        ValueError,
        AssertionError,
        requests.RequestException,
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
        s3transfer.exceptions.RetriesExceededError,
    )


def problem_of(error: Exception, doing: str, secrets: Sequence[str]) -> ServiceError:
    """Return one of `client_errors`, raised while `doing` something, as our own. A user's mistake is final, all else may pass."""
    import qai_hub

    # The client raises its own error while it handles the one that holds the HTTP status.
    status = getattr(error, "status_code", None) or getattr(error.__context__, "status_code", None)
    message = f"AI Hub, while {doing}: {_one_line(error, secrets)}"
    if status == _UNAUTHORIZED:
        return ServiceError(f"AI Hub refuses the token in '{config_path()}': it is wrong or has expired", hint=CONFIGURE_HINT)
    if status == _RATE_LIMITED:
        return ServiceError(message, transient=True, hint="too many requests; what is done is kept, run again later")
    if isinstance(error, qai_hub.UserError | ValueError):
        return ServiceError(message, is_absent=status == _NOT_FOUND)
    return ServiceError(message, transient=True, hint="what is done is kept; run again when the service answers")


def _one_line(error: Exception, secrets: Sequence[str]) -> str:
    """Return the client's words on one line, without the frames that it draws around them, addresses' signatures and secrets."""
    text = re.sub(r"[│┌┐└┘─|\s]+", " ", str(error)).strip() or type(error).__name__
    text = re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", text)
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
