"""Client: Qualcomm's own client, its errors in quadbench's words and its passing ones tried again.

The token stays in the client's configuration: it is never stored, logged or part of a message.
"""

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from quadbench.ai_hub.problems import CONFIGURE_HINT, client_errors, config_path, problem_of
from quadbench.errors import MissingDependencyError, ServiceError, package_needed

if TYPE_CHECKING:
    import qai_hub

INSTALL_HINT = "pip install 'quadbench[ai-hub]'"

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Waits before something is asked again: the first, how each grows, the longest, and how many there are.

    The client itself tries a request seven times within about half a minute (its util/session.py); these come on top.
    """

    first_s: float = 2.0
    growth: float = 3.0
    longest_s: float = 60.0
    retries: int = 4
    poll_first_s: float = 0.25
    poll_growth: float = 1.5
    poll_longest_s: float = 30.0

    def retry_waits_s(self) -> Iterator[float]:
        """The waits between attempts; the last failure is final."""
        return (min(self.longest_s, self.first_s * self.growth**i) for i in range(self.retries))

    def poll_waits_s(self) -> Iterator[float]:
        """The waits between two looks at a job, without end."""
        wait_s = self.poll_first_s
        while True:
            yield wait_s
            wait_s = min(self.poll_longest_s, wait_s * self.poll_growth)


@dataclass(frozen=True, kw_only=True)
class HostedDevice:
    """A device of the service, by its name there."""

    name: str
    android_release: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """A job at one moment; `state` is the service's word, `message` what it says of a failure."""

    job: str
    url: str
    state: str
    is_finished: bool
    is_ok: bool
    message: str


@dataclass(frozen=True, kw_only=True)
class HostedModel:
    """A model at the service: what is known of it, and its inputs by graph where the service tells them."""

    model: str
    metadata: dict[str, str]
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)


def open_hub(pace: Pace | None = None) -> "Hub":
    """The service as the user has configured the client.

    Raises:
        MissingDependencyError: the package, or its configuration, is not there.
    """
    with package_needed("AI Hub", hint=INSTALL_HINT):
        import qai_hub
    path = config_path()
    if not path.is_file():
        raise MissingDependencyError(f"AI Hub is not configured: there is no '{path}'", hint=CONFIGURE_HINT)
    client = qai_hub.Client()
    hub = Hub(client, pace or Pace())
    hub.ask("reading its configuration", lambda: client.set_verbose(False))
    return hub


class Hub:
    """The service. Every method is a few requests; what passes is tried again, all else is a ServiceError."""

    def __init__(self, client: "qai_hub.Client", pace: Pace) -> None:
        self._client = client
        self._jobs: dict[str, Any] = {}  # the client's own objects, so that they are not asked for again
        self._models: dict[str, Any] = {}
        self.pace = pace

    @property
    def url(self) -> str:
        return str(self._client.config.api_url)

    def devices(self) -> dict[str, HostedDevice]:
        """Every device by its name."""
        found = self.ask("listing its devices", self._client.get_devices)
        return {d.name: HostedDevice(name=d.name, android_release=d.os, attributes=tuple(d.attributes)) for d in found}

    def upload(self, path: Path, name: str) -> str:
        """Upload a model and return its id."""
        model = self.ask(f"uploading '{name}'", lambda: self._client.upload_model(str(path), name))
        self._models[model.model_id] = model
        return str(model.model_id)

    def has_model(self, model: str) -> bool:
        """Whether a model is there and ours to see."""
        return self._found(f"looking for model {model}", lambda: self._model(model)) is not None

    def submit_compile(self, model: str, device: str, options: str, name: str) -> str:
        """Submit a compile job and return its id."""
        return self._submit(
            f"submitting '{name}'",
            lambda: self._client.submit_compile_job(
                self._model(model), self._device(device), name=name, options=options, retry=False
            ),
        )

    def submit_link(self, models: Sequence[str], device: str, options: str, name: str) -> str:
        """Submit a job that links compiled models into one, and return its id."""
        return self._submit(
            f"linking '{name}'",
            lambda: self._client.submit_link_job(
                [self._model(model) for model in models], self._device(device), name=name, options=options
            ),
        )

    def submit_profile(self, model: str, device: str, options: str, name: str) -> str:
        """Submit a job that runs a compiled model on a device with random inputs, and return its id."""
        return self._submit(
            f"profiling '{name}'",
            lambda: self._client.submit_inference_job(
                self._model(model), self._device(device), name=name, options=options, profile=True, retry=False
            ),
        )

    def status(self, job: str) -> JobStatus | None:
        """Where a job stands; None where there is no such job."""
        found = self._found(f"asking for job {job}", lambda: self._job(job).get_status())
        if found is None:
            return None
        return JobStatus(
            job=job,
            url=self._jobs[job].url,
            state=found.code,
            is_finished=found.finished,
            is_ok=found.success,
            message=found.message or "",
        )

    def target_model(self, job: str) -> HostedModel:
        """What a finished compile or link job has made."""

        def ask() -> HostedModel:
            made = self._job(job).get_target_model()
            if made is None:
                raise ValueError(f"job {job} names no target model")
            model = self._models[made.model_id] = self._client.get_model(made.model_id)
            return HostedModel(
                model=model.model_id,
                metadata={key.name.lower(): value for key, value in model.metadata.items()},
                inputs={graph: tuple(tensor.name for tensor in tensors) for graph, tensors in model.input_spec.items() if graph},
            )

        return self.ask(f"asking what job {job} has made", ask)

    def download(self, model: str, folder: Path) -> Path:
        """Download a model into a folder under the service's name of it. A broken transfer is begun again."""
        return Path(self.ask(f"downloading model {model}", lambda: self._model(model).download(str(folder))))

    def profile(self, job: str) -> dict[str, Any]:
        """What a finished profile job has measured: the client's dictionary, times in microseconds, memory in bytes."""
        found: dict[str, Any] = self.ask(f"reading the profile of job {job}", lambda: self._job(job).download_profile())
        return found

    def ask(self, doing: str, request: Callable[[], Answer]) -> Answer:
        """Make a request, again where its failure may pass. Raises: ServiceError."""
        for wait_s in (*self.pace.retry_waits_s(), None):
            try:
                with _quiet():
                    return request()
            except client_errors() as error:
                problem = problem_of(error, doing, self._secrets())
                if wait_s is None or not problem.transient:
                    raise problem from None  # the client's own may hold what `problem_of` leaves out
                log.warning("%s; trying again in %.1f s", problem.message, wait_s)
                time.sleep(wait_s)
        raise AssertionError("the last wait is None")

    def _found(self, doing: str, request: Callable[[], Answer]) -> Answer | None:
        try:
            return self.ask(doing, request)
        except ServiceError as error:
            if error.is_absent:
                return None
            raise

    def _submit(self, doing: str, request: Callable[[], Any]) -> str:
        job = self.ask(doing, request)
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

    def _secrets(self) -> tuple[str, ...]:
        config = self._client._config  # the property would read the file again where that has failed
        return (config.api_token,) if config and config.api_token else ()

    def _device(self, name: str) -> "qai_hub.Device":
        import qai_hub

        return qai_hub.Device(name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The client prints; results on stdout are quadbench's alone, so its words go to the log."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            yield
    finally:
        for line in filter(None, map(str.strip, said.getvalue().splitlines())):
            log.debug("qai-hub: %s", line)
