"""Uploads and jobs at Qualcomm AI Hub. A JSON file records the ids of models and jobs, so that none is sent twice."""

import fcntl
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from quadbench.ai_hub.client import AiHubClient, JobStatus
from quadbench.artifacts import Graph
from quadbench.artifacts.safe_text import one_line
from quadbench.errors import ArtifactError, JobFailedError, ServiceError
from quadbench.results.digests import digest_of, sha256_of
from quadbench.results.disk import write_atomic
from quadbench.spec import first_problem, read_json
from quadbench.target.targets import AiHubTarget

LedgerKind = Literal["models", "jobs"]

log = logging.getLogger(__name__)
Notify = Callable[[str], None]


class _LedgerFile(BaseModel):
    """The JSON file that stores AI Hub ids. For each service URL, it maps digests of model files and of jobs to ids."""

    schema_version: Literal[1] = 1
    services: dict[str, dict[LedgerKind, dict[str, str]]]


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A JSON file that records the ids of models and jobs sent to AI Hub at `url`. Several processes can share the file."""

    path: Path
    url: str

    def find(self, kind: LedgerKind, digest: str) -> str | None:
        """Return the AI Hub id recorded for `digest`, that of a model file or job settings, or None if none is recorded."""
        return self._entries(self._read(), kind).get(digest)

    def put(self, kind: LedgerKind, digest: str, identifier: str) -> None:
        """Record a model's or job's AI Hub id in the ledger's file. `digest` is computed from the model file or job settings."""
        with self._locked_update() as content:
            self._entries(content, kind)[digest] = identifier

    def forget(self, kind: LedgerKind, digest: str) -> None:
        """Delete the recorded AI Hub id of a model or job. `digest` is computed from the model file or job settings."""
        with self._locked_update() as content:
            self._entries(content, kind).pop(digest, None)

    def _entries(self, content: _LedgerFile, kind: LedgerKind) -> dict[str, str]:
        return content.services.setdefault(self.url, {}).setdefault(kind, {})

    def _read(self) -> _LedgerFile:
        if not self.path.exists():
            return _LedgerFile(services={})
        try:
            return _LedgerFile.model_validate(read_json(self.path, fault=ArtifactError), strict=True)
        except (ArtifactError, ValidationError) as error:
            why = error.message if isinstance(error, ArtifactError) else one_line(first_problem(error))
            hint = "remove the file; AI Hub then gets and compiles the models again"
            raise ArtifactError(f"'{self.path}' is damaged: {why}", hint=hint) from error

    @contextmanager
    def _locked_update(self) -> Iterator[_LedgerFile]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = self._read()
            yield content
            write_atomic(self.path, json.dumps(content.model_dump(), indent=1, sort_keys=True))


@dataclass(frozen=True, kw_only=True)
class HubJobs:
    """Uploads models and submits jobs to AI Hub, and records ids in a JSON file. Skips a model or job that AI Hub already has."""

    hub: AiHubClient
    ledger: Ledger
    timeout_s: float
    notify: Notify = field(default=lambda _step: None)

    def upload_once(self, path: Path, name: str) -> str:
        """Upload a model file unless AI Hub still has the same file from an earlier upload. Return the model's AI Hub id."""
        digest = sha256_of(path)
        known = self.ledger.find("models", digest)
        if known and self.hub.has_model(known):
            log.info("AI Hub already has '%s': model %s", name, known)
            return known
        self.notify(f"upload {name}")
        model = self.hub.upload(path, name)
        self.ledger.put("models", digest, model)
        return model

    def submit_once(self, submit: Callable[[], str], **parts: object) -> str:
        """Return the id of an earlier, unfailed job with settings `parts`. Without one, call `submit`, which returns a new id."""
        digest = job_digest(**parts)
        known = self.ledger.find("jobs", digest)
        status = self.hub.status(known) if known else None
        if known and status and (status.is_ok or not status.is_finished):
            log.info("AI Hub already has the job: %s, %s", known, status.state)
            return known
        job = submit()
        self.ledger.put("jobs", digest, job)
        return job

    def forget(self, **parts: object) -> None:
        """Delete the recorded id of the job with settings `parts`, so that `submit_once` submits a new job for equal settings."""
        self.ledger.forget("jobs", job_digest(**parts))

    def wait(self, jobs: Mapping[str, str]) -> None:
        """Wait until all jobs have ended; raise JobFailedError if one failed. `jobs` is a dict from a job's name to its id."""
        for name, status in self.wait_for_end(jobs).items():
            if not status.is_ok:
                raise job_failure(name, status)

    def wait_for_end(self, jobs: Mapping[str, str]) -> dict[str, JobStatus]:
        """Wait until all jobs succeed or fail. `jobs` is a dict from job name to id. Return a dict from job name to JobStatus."""
        deadline = time.monotonic() + self.timeout_s
        latest: dict[str, JobStatus] = {}
        pending = dict(jobs)
        for wait_s in self.hub.pace.poll_waits_s():
            latest |= {name: self._status(name, job) for name, job in pending.items()}
            pending = {name: job for name, job in pending.items() if not latest[name].is_finished}
            if not pending:
                break
            name = next(iter(pending))
            self.notify(f"{name}: {latest[name].state} ({len(jobs) - len(pending)} of {len(jobs)} jobs done)")
            if time.monotonic() + wait_s > deadline:
                late = (latest[name] for name in pending)
                unfinished = ", ".join(f"{one.job} ({one.state}, {one.url})" for one in late)
                raise ServiceError(
                    f"AI Hub has not finished after {self.timeout_s:g} s: {unfinished}",
                    transient=True,
                    hint="run again to keep waiting for these jobs, which continue at AI Hub, or raise the target's timeout_s",
                )
            time.sleep(wait_s)
        return latest

    def _status(self, name: str, job: str) -> JobStatus:
        status = self.hub.status(job)
        if status is None:
            raise ServiceError(f"AI Hub no longer knows job {job} of '{name}'", hint="run again to submit the job again")
        return status


@dataclass(frozen=True, kw_only=True)
class HubRequest:
    """A request that a compilation sends to AI Hub: an upload, a job with its name and options, or a download.

    `known` is the id of a model or job that the ledger has, which is then not sent again. `size_bytes` is that of an upload.
    """

    kind: Literal["upload", "compile", "link", "download"]
    name: str
    device: str = ""
    options: str = ""
    size_bytes: int | None = None
    known: str | None = None


def compile_requests(graph: Graph, path: Path, target: AiHubTarget, ledger: Ledger | None) -> Iterator[HubRequest]:
    """Yield the requests that compiling a graph's file would send: the compile job, before it the upload if no job is known."""
    name, options, sha256 = graph.file.path, compile_options(graph, target), sha256_of(path)
    digest = job_digest(graph=sha256, device=target.device, options=options)
    job = ledger.find("jobs", digest) if ledger else None
    if job is None:
        model = ledger.find("models", sha256) if ledger else None
        yield HubRequest(kind="upload", name=name, size_bytes=path.stat().st_size, known=model)
    yield HubRequest(kind="compile", name=job_name(name, sha256), device=target.device, options=options, known=job)


def job_digest(**parts: object) -> str:
    """Return the digest under which the ledger records a job with settings `parts`."""
    return digest_of(parts)


def job_name(name: str, sha256: str) -> str:
    """Return a job's name at AI Hub, such as `quadbench shared/unet.onnx 0123456789ab`, from a file's name and SHA-256."""
    return f"quadbench {name} {sha256[:12]}"


def job_failure(name: str, status: JobStatus) -> JobFailedError:
    """Return a JobFailedError for a failed AI Hub job. The message has the job's name, failure reason and web page."""
    return JobFailedError(
        f"AI Hub job {status.job} of '{name}' failed: {status.message or 'no reason given'} ({status.url})",
        hint="read the log on the job's page; a new run submits the job again",
    )


def compile_options(graph: Graph, target: AiHubTarget) -> str:
    """Return the option string of an AI Hub compile job: target runtime, output names, graph name and what else the target sets.

    These are the options of Qualcomm's export scripts (qai_hub_models 0.47, utils/base_model.py), which also give every quantized
    model `--quantize_io`. Here only a target that asks for it does: the harness gives float32 where a graph has float inputs, and
    LoRA inputs are INT16 in the graph itself.
    """
    # A context binary is linked from DLCs, because the service no longer compiles to context binaries directly.
    runtime = "qnn_dlc" if target.runtime == "qnn_context_binary" else target.runtime
    return " ".join(
        (
            f"--target_runtime {runtime}",
            f"--output_names {','.join(output.name for output in graph.outputs)}",
            *(("--quantize_io",) if target.quantize_io and graph.variant.is_quantized else ()),
            f"--qnn_options context_enable_graphs={graph_name(graph)}",
            *_version(target),
        )
    )


def link_options(target: AiHubTarget) -> str:
    return " ".join(_version(target))


def profile_options(graph: Graph, target: AiHubTarget, *, iterations: int) -> str:
    """Return the option string of an AI Hub profile job: iterations, QAIRT version if set, graph name if a context binary."""
    graphs = (f"--qnn_options context_enable_graphs={graph_name(graph)}",) if target.runtime == "qnn_context_binary" else ()
    return " ".join((f"--max_profiler_iterations {iterations}", *graphs, *_version(target)))


def graph_name(graph: Graph) -> str:
    """Return a graph's name in a context binary: the component, such as `unet`, and `_<task>` if only one task uses the graph."""
    words = [graph.component, *([graph.task] if graph.task else [])]
    return re.sub(r"\W", "_", "_".join(words))


def _version(target: AiHubTarget) -> Iterator[str]:
    if target.qairt_version:
        yield f"--qairt_version {target.qairt_version}"
