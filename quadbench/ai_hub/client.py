"""A client of Qualcomm AI Hub that returns plain data and turns failures into one-line ServiceErrors without secrets."""

import contextlib
import io
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from quadbench.errors import MissingDependencyError, ServiceError, extra_hint, requires_package
from quadbench.spec import path_variable

INSTALL_HINT = extra_hint("ai-hub")

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

CONFIGURE_HINT = "qai-hub configure --api_token TOKEN, with the token from your account page at AI Hub"
CONFIG_VARIABLE = "QAIHUB_CLIENT_INI"  # read by the client itself
_UNAUTHORIZED, _NOT_FOUND, _RATE_LIMITED = 401, 404, 429


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """The waits in seconds between retries of a request, and between polls of a job. In both series, waits grow up to a limit.

    The qai_hub client itself tries a request seven times within about 30 s (its util/session.py); these retries come on top.
    """

    first_s: float = 2.0
    growth: float = 3.0
    longest_s: float = 60.0
    retries: int = 4
    poll_first_s: float = 0.25
    poll_growth: float = 1.5
    poll_longest_s: float = 30.0

    def retry_waits_s(self) -> Iterator[float]:
        """Return an iterator over `retries` waits, in seconds: one before each retry of a failed request."""
        return (min(self.longest_s, self.first_s * self.growth**i) for i in range(self.retries))

    def poll_waits_s(self) -> Iterator[float]:
        """Yield an endless series of waits, in seconds, between polls of a job's status. Waits grow up to `poll_longest_s`."""
        wait_s = self.poll_first_s
        while True:
            yield wait_s
            wait_s = min(self.poll_longest_s, wait_s * self.poll_growth)


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """The status of an AI Hub job. `state` is the service's status code. `message` is the failure reason, empty if not given."""

    job: str
    url: str
    state: str
    is_finished: bool
    is_ok: bool
    message: str


@dataclass(frozen=True, kw_only=True)
class HostedModel:
    """A model at AI Hub: its id and metadata. `inputs` is a dict from graph name to input names, or empty if unknown."""

    model: str
    metadata: dict[str, str]
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)


def open_client(backoff: Backoff | None = None) -> "AiHubClient":
    """Return an AiHubClient. Raise MissingDependencyError if the qai_hub package or AI Hub's configuration file is missing."""
    with requires_package("AI Hub", hint=INSTALL_HINT):
        import qai_hub
    path = config_path()
    if not path.is_file():
        raise MissingDependencyError(f"AI Hub is not configured: '{path}' does not exist", hint=CONFIGURE_HINT)
    client = qai_hub.Client()
    hub = AiHubClient(client, backoff or Backoff())
    hub.request("reading its configuration", lambda: client.set_verbose(False))
    return hub


class AiHubClient:
    """A connection to AI Hub. Transient failures of requests are retried. Lasting or other failures raise ServiceError."""

    def __init__(self, client: Any, backoff: Backoff) -> None:
        self._client = client  # a qai_hub.Client
        self._jobs: dict[str, Any] = {}  # the client's objects, cached to save requests
        self._models: dict[str, Any] = {}
        self.pace = backoff

    @property
    def url(self) -> str:
        """Return the service's URL from the client's configuration."""
        return str(self._client.config.api_url)

    def devices(self) -> dict[str, str]:
        """Return the service's available devices, as a dict from device name to Android release."""
        return {device.name: device.os for device in self.request("listing its devices", self._client.get_devices)}

    def upload(self, path: Path, name: str) -> str:
        """Upload a model file to the service, and return the id of the new model."""
        model = self.request(f"uploading '{name}'", lambda: self._client.upload_model(str(path), name))
        self._models[model.model_id] = model
        return str(model.model_id)

    def has_model(self, model: str) -> bool:
        """Return whether a model with the given id exists at AI Hub and is accessible with the configured API token."""
        return self._request_or_none(f"looking for model {model}", lambda: self._model(model)) is not None

    def submit_compile(self, model: str, device: str, options: str, name: str) -> str:
        """Submit a job that compiles an uploaded model for a device, and return the job's id."""
        return self._submit(
            f"submitting '{name}'",
            lambda: self._client.submit_compile_job(
                self._model(model), self._device(device), name=name, options=options, retry=False
            ),
        )

    def submit_link(self, models: Sequence[str], device: str, options: str, name: str) -> str:
        """Submit a job that links compiled models into one, and return the job's id."""
        return self._submit(
            f"linking '{name}'",
            lambda: self._client.submit_link_job(
                [self._model(model) for model in models], self._device(device), name=name, options=options
            ),
        )

    def submit_profile(self, model: str, device: str, options: str, name: str) -> str:
        """Submit a job that profiles a compiled model on a device with random inputs, and return the job's id."""
        return self._submit(
            f"profiling '{name}'",
            lambda: self._client.submit_inference_job(
                self._model(model), self._device(device), name=name, options=options, profile=True, retry=False
            ),
        )

    def status(self, job: str) -> JobStatus | None:
        """Return the status of a job, or None if there is no such job."""
        status = self._request_or_none(f"asking for job {job}", lambda: self._job(job).get_status())
        if status is None:
            return None
        return JobStatus(
            job=job,
            url=self._jobs[job].url,
            state=status.code,
            is_finished=status.finished,
            is_ok=status.success,
            message=status.message or "",
        )

    def target_model(self, job: str) -> HostedModel:
        """Return the model that a finished compile or link job produced, as a HostedModel: id, metadata and input names."""

        def ask() -> HostedModel:
            target = self._job(job).get_target_model()
            if target is None:
                raise ValueError(f"job {job} has no target model")
            model = self._models[target.model_id] = self._client.get_model(target.model_id)
            return HostedModel(
                model=model.model_id,
                metadata={key.name.lower(): value for key, value in model.metadata.items()},
                inputs={graph: tuple(tensor.name for tensor in tensors) for graph, tensors in model.input_spec.items() if graph},
            )

        return self.request(f"reading the target model of job {job}", ask)

    def download(self, model: str, folder: Path) -> Path:
        """Download a model's file into a folder and return the file's path. Retry the download after a transient failure."""
        return Path(self.request(f"downloading model {model}", lambda: self._model(model).download(str(folder))))

    def profile(self, job: str) -> dict[str, Any]:
        """Return a finished profile job's results as the dict that AI Hub provides. Times are in µs and memory sizes in bytes."""
        profile: dict[str, Any] = self.request(f"reading the profile of job {job}", lambda: self._job(job).download_profile())
        return profile

    def request(self, doing: str, request: Callable[[], Answer]) -> Answer:
        """Call the function `request` and return its result. Retry transient failures; raise ServiceError for lasting ones."""
        for wait_s in (*self.pace.retry_waits_s(), None):
            try:
                with _logged_output():
                    return request()
            except client_errors() as error:
                config = self._client._config  # the property would read a broken file again
                problem = error_summary(error, doing, (config.api_token,) if config and config.api_token else ())
                if wait_s is None or not problem.transient:
                    raise problem from None  # the original error may contain secrets
                log.warning("%s; retrying in %.1f s", problem.message, wait_s)
                time.sleep(wait_s)
        raise AssertionError("the last wait is None")

    def _request_or_none(self, doing: str, request: Callable[[], Answer]) -> Answer | None:
        """Call the function `request` and return its result. Return None if AI Hub lacks the requested model or job."""
        try:
            return self.request(doing, request)
        except ServiceError as error:
            if error.is_absent:
                return None
            raise

    def _submit(self, doing: str, request: Callable[[], Any]) -> str:
        job = self.request(doing, request)
        self._jobs[job.job_id] = job
        return str(job.job_id)

    def _job(self, job: str) -> Any:
        if job not in self._jobs:
            self._jobs[job] = self._client.get_job(job)
        return self._jobs[job]

    def _model(self, model: str) -> Any:
        if model not in self._models:
            self._models[model] = self._client.get_model(model)
        return self._models[model]

    def _device(self, name: str) -> Any:
        import qai_hub

        return qai_hub.Device(name)


@contextlib.contextmanager
def _logged_output() -> Iterator[None]:
    """Return a context manager that redirects the qai_hub client's prints from stdout to the log."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            yield
    finally:
        for line in filter(None, map(str.strip, output.getvalue().splitlines())):
            log.debug("qai-hub: %s", line)


def config_path() -> Path:
    """Return the path of the qai_hub client's configuration file. The file need not exist."""
    return (path_variable(CONFIG_VARIABLE) or Path("~/.qai_hub/client.ini")).expanduser()


def client_errors() -> tuple[type[Exception], ...]:
    """Return a tuple of the exception classes that qai_hub calls can raise: qai_hub's, built-in, HTTP and S3 exceptions."""
    import botocore.exceptions
    import qai_hub.public_rest_api
    import requests
    import s3transfer.exceptions

    return (
        qai_hub.Error,
        qai_hub.public_rest_api.APIException,
        ValueError,
        AssertionError,
        requests.RequestException,
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
        s3transfer.exceptions.RetriesExceededError,
    )


def error_summary(error: Exception, doing: str, secrets: Sequence[str]) -> ServiceError:
    """Convert a qai_hub exception into a ServiceError, transient unless the token or request is invalid. Remove secrets."""
    import qai_hub

    # The client raises its own error while it handles the HTTP error, which has the status code.
    status = getattr(error, "status_code", None) or getattr(error.__context__, "status_code", None)
    # Messages are drawn in a text frame. Query strings of URLs (signatures) and secrets are removed.
    text = re.sub(r"[│┌┐└┘─|\s]+", " ", str(error)).strip() or type(error).__name__
    text = re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", text)
    for secret in secrets:
        text = text.replace(secret, "***")
    message = f"AI Hub, while {doing}: {text}"
    if status == _UNAUTHORIZED:
        return ServiceError(f"AI Hub rejects the token in '{config_path()}': it is wrong or has expired", hint=CONFIGURE_HINT)
    if status == _RATE_LIMITED:
        return ServiceError(message, transient=True, hint="run again later: too many requests; finished work is kept")
    if isinstance(error, qai_hub.UserError | ValueError):
        return ServiceError(message, is_absent=status == _NOT_FOUND)
    return ServiceError(message, transient=True, hint="run again when the service answers; finished work is kept")
