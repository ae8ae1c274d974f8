"""AI Hub service: a folder -> a stand-in for Qualcomm AI Hub on loopback. It speaks the real client's REST and protobuf.

    GET    /api/v1/devices/                         DeviceList
    POST   /api/v1/models/                          Model -> its id
    GET    /api/v1/models/ID/                       Model
    GET    /api/v1/models/ID/multipart_upload/      the addresses of the parts
    POST   /api/v1/models/ID/multipart_upload/      all parts are there
    GET    /api/v1/models/ID/download/              the address of the contents
    POST   /api/v1/jobs/                            Job -> its id
    GET    /api/v1/jobs/ID/                         Job, one look further on its way
    GET    /api/v1/jobs/ID/result/                  JobResult
    PUT    /storage/ID/PART                         a part of a model
    GET    /storage/ID                              a model's contents

A compile job returns the graph as ONNX Runtime optimizes it, zipped as the service zips: nothing is compiled for an NPU. A DLC is
the graph as it was uploaded, and a context binary such graphs one after the other: neither can run anywhere.
"""

import io
import itertools
import re
import socket
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import onnx
import onnxruntime
from google.protobuf.message import Message
from qai_hub import public_api_pb2 as pb

TOKEN = "loopback-token-0123456789"
DEVICE = "Samsung Galaxy S25 (Family)"
QAIRT_VERSION = "0.0.0-loopback"
PART_BYTES = 64 * 1024
PROFILE_US = (1200, 1000, 1100)
Compile = Callable[[bytes], dict[str, bytes]]


@dataclass
class Faults:
    """The faults to come, and how often; a count goes down each time."""

    rate_limited: int = 0  # job submissions answered with 429
    unavailable: int = 0  # requests answered with 503
    broken_uploads: int = 0  # parts whose connection breaks
    truncated_downloads: int = 0  # downloads that end early
    damaged_downloads: int = 0  # downloads whose contents are not what was stored
    is_token_expired: bool = False
    failing: dict[str, str] = field(default_factory=dict)  # part of a job's name or options -> why it fails
    looks_until_done: int = 1  # how often a job is asked for before it is done
    never_done: bool = False


@dataclass
class _Model:
    message: pb.Model
    parts: dict[int, bytes] = field(default_factory=dict)
    filename: str = ""

    @property
    def contents(self) -> bytes:
        return b"".join(self.parts[number] for number in sorted(self.parts))


@dataclass
class _Job:
    message: pb.Job
    looks: int = 0


class AiHubService:
    """The state of the service: its uploads and submissions, and the faults to come. One test uses it."""

    def __init__(self, compile_onnx: Compile) -> None:
        self.faults = Faults()
        self.uploads: list[str] = []
        self.submissions: list[pb.Job] = []
        self.models: dict[str, _Model] = {}
        self.jobs: dict[str, _Job] = {}
        self.lock = threading.RLock()
        self._compile = compile_onnx
        self._numbers = itertools.count(1)
        self.url = ""

    def options(self) -> list[str]:
        """Return the options of every submitted job, in order."""
        return [_inner(job).options for job in self.submissions]

    def new_model(self, name: str, model_type: int, *, filename: str = "", contents: bytes | None = None) -> _Model:
        identifier = f"m{next(self._numbers):06d}"
        message = pb.Model(model_id=identifier, name=name, model_type=model_type)
        message.creation_time.seconds = 1
        model = _Model(message=message, filename=filename or name)
        if contents is not None:
            model.parts[0] = contents
        self.models[identifier] = model
        return model

    def submit(self, job: pb.Job) -> str:
        identifier = f"j{next(self._numbers):06d}"
        inner = _inner(job)
        setattr(inner, f"{job.WhichOneof('job')}_id", identifier)
        inner.creation_time.seconds = 1
        inner.job_state = pb.JOB_STATE_CREATED
        self.submissions.append(job)
        self.jobs[identifier] = _Job(message=job)
        kind = job.WhichOneof("job")
        if kind in ("compile_job", "link_job"):
            inner.target_model.CopyFrom(self.new_model(f"{inner.name}.target", self._target_type(job)).message)
        return identifier

    def look(self, identifier: str) -> pb.Job:
        """Return a job; each look brings it on."""
        job = self.jobs[identifier]
        inner = _inner(job.message)
        job.looks += 1
        if inner.job_state in (pb.JOB_STATE_DONE, pb.JOB_STATE_FAILED):
            return job.message
        inner.job_state = pb.JOB_STATE_OPTIMIZING_MODEL
        if not self.faults.never_done and job.looks > self.faults.looks_until_done + 1:  # the client looks once by itself
            self._finish(job.message)
        return job.message

    def _finish(self, job: pb.Job) -> None:
        inner = _inner(job)
        for words, reason in self.faults.failing.items():
            if words in inner.name or words in inner.options:
                inner.job_state, inner.failure_reason = pb.JOB_STATE_FAILED, reason
                return
        try:
            match job.WhichOneof("job"):
                case "compile_job":
                    self._compiled(inner)
                case "link_job":
                    self._linked(inner)
        except Exception as error:  # whatever a compiler says
            inner.job_state, inner.failure_reason = pb.JOB_STATE_FAILED, str(error)
            return
        inner.job_state = pb.JOB_STATE_DONE

    def _compiled(self, job: pb.CompileJob) -> None:
        source, target = self.models[job.model.model_id], self.models[job.target_model.model_id]
        graph = re.search(r"context_enable_graphs=(\S+)", job.options)[1]
        if "qnn_dlc" in job.options:
            target.parts[0], target.filename = source.contents, f"{graph}.dlc"
            return
        target.filename = f"{graph}.onnx.zip"
        target.parts[0] = _zipped({f"{graph}.onnx/{name}": data for name, data in self._compile(source.contents).items()})
        target.message.metadata.entries[pb.MODEL_METADATA_KEY_QAIRT_SDK_VERSION] = QAIRT_VERSION

    def _linked(self, job: pb.LinkJob) -> None:
        target, sources = self.models[job.target_model.model_id], [self.models[m.model_id] for m in job.models.models]
        target.filename = "linked.bin"
        target.parts[0] = b"".join(source.contents for source in sources)
        for source in sources:
            for value in onnx.load_from_string(source.contents).graph.input:
                target.message.input_spec.types.append(
                    pb.NamedTensorType(name=value.name, graph_name=Path(source.filename).stem, tensor_type=_tensor_type(value))
                )

    def _target_type(self, job: pb.Job) -> int:
        if job.WhichOneof("job") == "link_job":
            return pb.MODEL_TYPE_QNN_CONTEXT_BINARY
        return pb.MODEL_TYPE_QNN_DLC if "qnn_dlc" in job.compile_job.options else pb.MODEL_TYPE_ONNX


def optimized_by_onnxruntime(source: bytes) -> dict[str, bytes]:
    """Optimize a graph for the CPU; inputs and outputs stay. This is no product of a compiler for an NPU."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        return {"model.onnx": Path(options.optimized_model_filepath).read_bytes()}


@contextmanager
def ai_hub_service(folder: Path, compile_onnx: Compile = optimized_by_onnxruntime) -> Iterator[tuple[AiHubService, Path]]:
    """Run the service; give it and the client's configuration that leads to it, written into `folder`."""
    service = AiHubService(compile_onnx)

    class Handler(_Handler):
        state = service

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    config = folder / "client.ini"
    config.write_text(f"[api]\napi_token = {TOKEN}\napi_url = {service.url}\nweb_url = {service.url}\nverbose = True\n")
    try:
        yield service, config
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: AiHubService

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep requests off stderr."""

    def _handle(self) -> None:
        path = [part for part in urlsplit(self.path).path.split("/") if part]
        with self.state.lock:
            if self.state.faults.unavailable:
                self.state.faults.unavailable -= 1
                self._body()
                self._answer(503, b"", "text/plain")
            elif path[0] == "storage":
                self._storage(path)
            elif self.state.faults.is_token_expired or self.headers["Authorization"] != f"token {TOKEN}":
                self._body()
                self._answer(401, b'{"detail": "Invalid token."}', "application/json")
            else:
                self._api(path[2:], self._body())

    def _api(self, path: list[str], body: bytes) -> None:
        state = self.state
        match [self.command, *path]:
            case ["GET", "devices"]:
                self._proto(self._devices())
            case ["POST", "models"]:
                asked = pb.Model.FromString(body)
                self._created(state.new_model(asked.name, asked.model_type).message.model_id)
            case ["GET", "models", identifier, "multipart_upload"]:
                self._proto(self._parts(identifier))
            case ["POST", "models", identifier, "multipart_upload"]:
                state.uploads.append(state.models[identifier].message.name)
                self._created(identifier)
            case ["GET", "models", identifier, "download"]:
                url = pb.FileDownloadURL(url=f"{state.url}/storage/{identifier}", filename=state.models[identifier].filename)
                self._proto(pb.FileDownloadResponse(url=url))
            case ["GET", "models", identifier] if identifier in state.models:
                self._proto(state.models[identifier].message)
            case ["POST", "jobs"]:
                self._submit(pb.Job.FromString(body))
            case ["GET", "jobs", identifier, "result"]:
                self._proto(_profile(identifier))
            case ["GET", "jobs", identifier] if identifier in state.jobs:
                self._proto(state.look(identifier))
            case _:
                self._answer(404, b'{"detail": "Not found."}', "application/json")

    def _submit(self, job: pb.Job) -> None:
        if self.state.faults.rate_limited:
            self.state.faults.rate_limited -= 1
            self._answer(429, b'{"detail": "Too many jobs are running."}', "application/json")
            return
        self._created(self.state.submit(job))

    def _devices(self) -> pb.DeviceList:
        asked = parse_qs(urlsplit(self.path).query).get("name", [DEVICE])
        device = pb.Device(name=DEVICE, os="15", attributes=["framework:onnx", "framework:qnn", "htp-supports-fp16:true"])
        return pb.DeviceList(devices=[device] if DEVICE in asked else [])

    def _parts(self, identifier: str) -> pb.FileUploadResponse:
        size = int(parse_qs(urlsplit(self.path).query)["file_size"][0])
        count = max(1, -(-size // PART_BYTES))
        urls = [f"{self.state.url}/storage/{identifier}/{part}?signature=secret" for part in range(count)]
        return pb.FileUploadResponse(multipart_url=pb.FileMultipartUploadURL(urls=urls, upload_id="u1", max_part_size=PART_BYTES))

    def _storage(self, path: list[str]) -> None:
        faults, model = self.state.faults, self.state.models[path[1]]
        if self.command == "PUT":
            if faults.broken_uploads:
                faults.broken_uploads -= 1
                self.rfile.read(int(self.headers["Content-Length"]) // 2)
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            model.parts[int(path[2])] = self._body()
            self._answer(200, b"", "text/plain", ETag=f'"{path[2]}"')
        elif faults.truncated_downloads:
            faults.truncated_downloads -= 1
            self._answer(200, model.contents, "application/octet-stream", sent=len(model.contents) // 2)
        elif faults.damaged_downloads:
            faults.damaged_downloads -= 1
            self._answer(200, model.contents[: len(model.contents) // 2], "application/octet-stream")
        else:
            self._answer(200, model.contents, "application/octet-stream")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _created(self, identifier: str) -> None:
        answer = pb.CreateUpdateResponse(id=identifier)
        answer.creation_time.seconds = 1
        self._proto(answer, status=201)

    def _proto(self, message: Message, status: int = 200) -> None:
        self._answer(status, message.SerializeToString(), "application/x-protobuf")

    def _answer(self, status: int, body: bytes, content_type: str, *, sent: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:sent])
        if sent is not None:
            self.close_connection = True


def _inner(job: pb.Job) -> "pb.CompileJob | pb.LinkJob | pb.InferenceJob":
    return getattr(job, job.WhichOneof("job"))


def _profile(identifier: str) -> pb.JobResult:
    """Return invented times and bytes, the same for every model."""
    memory = pb.ProfileDetail.MemoryUsage(
        increase=pb.Range(lower=1000, upper=2000), peak=pb.Range(lower=5_000_000, upper=6_000_000)
    )
    detail = pb.ProfileDetail(
        major_version=1,
        minor_version=2,
        execution_time=min(PROFILE_US),
        cold_load_time=90_000,
        warm_load_time=40_000,
        execution_memory=memory,
        all_execution_times=PROFILE_US,
        all_cold_load_times=[90_000],
        all_warm_load_times=[40_000, 41_000],
        layer_details=[pb.LayerDetail(name="conv", layer_type_name="Conv2d", compute_unit=pb.COMPUTE_UNIT_NPU)],
    )
    return pb.JobResult(inference_job_result=pb.InferenceJobResult(inference_job_id=identifier, detail=detail))


def _tensor_type(value: onnx.ValueInfoProto) -> pb.TensorType:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return pb.TensorType(shape=shape, dtype=pb.TensorDtype.Value(f"TENSOR_DTYPE_{dtype.upper()}"))


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()
