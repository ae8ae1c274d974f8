"""AI Hub: compile graphs at Qualcomm's service. A small trial graph first shows whether the service accepts LoRA inputs."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import assert_never

import numpy as np

from quadbench.ai_hub import hub_jobs
from quadbench.ai_hub.client import Backoff, HostedModel, open_client
from quadbench.ai_hub.hub_jobs import HubJobs, HubRequest, Ledger, compile_options, graph_name, job_name, link_options
from quadbench.artifacts import LORA_PREFIX, Caveat, Component, Graph, TensorSpec, Variant
from quadbench.compile.graph_compiler import CompileResult
from quadbench.compile.single_file import nodes_outside_context, single_file
from quadbench.errors import BuildError, JobFailedError, MissingDependencyError, ServiceError, UnknownNameError
from quadbench.results.digests import digest_of, sha256_of
from quadbench.results.manifest import file_ref
from quadbench.target.targets import AiHubTarget

log = logging.getLogger(__name__)
_IO_HINTS = {  # by the target's quantize_io
    False: "if LoRA inputs came back as float32, set quantize_io: true in the target; see docs/compilers.md",
    True: "leave quantize_io out of the target: with it, AI Hub makes integers of inputs to which the harness gives float32",
}
_ACTIVATION_SCALE, _LORA_SCALE = 1 / 4096, 1 / 32767
_TRIAL = """
<ir_version: 10, opset_import: ["" : 21]>
trial (float[1, 8, 8, 8] x, int16[4, 8, 3, 3] "lora.trial.down", int16[8, 4, 1, 1] "lora.trial.up") => (float[1, 8, 8, 8] y) {
    "x.q" = QuantizeLinear (x, "activation.scale", "activation.zero")
    "x.dq" = DequantizeLinear ("x.q", "activation.scale", "activation.zero")
    w = DequantizeLinear ("w.q", "w.scale")
    down = DequantizeLinear ("lora.trial.down", "lora.scale")
    up = DequantizeLinear ("lora.trial.up", "lora.scale")
    base = Conv <pads = [1, 1, 1, 1]> ("x.dq", w)
    "base.q" = QuantizeLinear (base, "activation.scale", "activation.zero")
    "base.dq" = DequantizeLinear ("base.q", "activation.scale", "activation.zero")
    projected = Conv <pads = [1, 1, 1, 1]> ("x.dq", down)
    "projected.q" = QuantizeLinear (projected, "activation.scale", "activation.zero")
    "projected.dq" = DequantizeLinear ("projected.q", "activation.scale", "activation.zero")
    lora = Conv <pads = [0, 0, 0, 0]> ("projected.dq", up)
    "lora.q" = QuantizeLinear (lora, "activation.scale", "activation.zero")
    "lora.dq" = DequantizeLinear ("lora.q", "activation.scale", "activation.zero")
    sum = Add ("base.dq", "lora.dq")
    "sum.q" = QuantizeLinear (sum, "activation.scale", "activation.zero")
    y = DequantizeLinear ("sum.q", "activation.scale", "activation.zero")
}
"""


@dataclass(frozen=True, kw_only=True)
class AiHubCompiler:
    """Qualcomm AI Hub as a compiler. It submits jobs for all graphs before it waits for any, as AI Hub runs jobs in parallel."""

    target: AiHubTarget
    ledger: Path  # the file that records which models and jobs the service already has
    pace: Backoff = field(default_factory=Backoff)

    def versions(self) -> dict[str, str]:
        """Return a dict: `ai_hub.device` is the target's device, `ai_hub.qairt` the requested SDK version or `default`."""
        return {"ai_hub.device": self.target.device, "ai_hub.qairt": self.target.qairt_version or "default"}

    def compile_all(self, graphs: Sequence[Graph], source: Path, folder: Path, notify: Callable[[str], None]) -> CompileResult:
        """Compile the graphs in `source` into `folder`; return a CompileResult. Reuse AI Hub jobs that are finished or running.

        Before large uploads, a graph of two layers tests whether the service accepts LoRA weights as inputs.
        """
        hub = open_client(self.pace)
        if self.target.device not in (devices := hub.devices()):
            raise UnknownNameError("AI Hub device", self.target.device, devices)
        jobs = HubJobs(hub=hub, ledger=Ledger(path=self.ledger, url=hub.url), timeout_s=self.target.timeout_s, notify=notify)
        compilation = _HubCompilation(target=self.target, jobs=jobs)
        if _need_trial(graphs):
            with tempfile.TemporaryDirectory() as trial:
                graph = write_trial_graph(Path(trial))
                try:
                    compilation.compile([graph], Path(trial), Path(trial) / "compiled")
                except BuildError as error:
                    if isinstance(error, ServiceError) and not isinstance(error, JobFailedError):
                        raise
                    raise BuildError(
                        f"AI Hub cannot compile a convolution with INT16 LoRA weights as inputs: {error.message}. "
                        "quadbench tried a graph of two layers, and uploaded nothing of the bundle",
                        hint=error.hint or _IO_HINTS[self.target.quantize_io],
                    ) from error
        return compilation.compile(graphs, source, folder)

    def plan(self, graphs: Sequence[Graph], source: Path) -> tuple[HubRequest, ...]:
        """Return all requests that `compile_all` sends for the graphs in `source`, in order. Send nothing.

        Where AI Hub is not configured, no model or job counts as known. What AI Hub has forgotten since is sent again, too.
        """
        try:
            ledger = Ledger(path=self.ledger, url=open_client(self.pace).url)
        except MissingDependencyError:
            ledger = None
        requests: list[HubRequest] = []
        if _need_trial(graphs):
            with tempfile.TemporaryDirectory() as trial:
                requests += _requests([write_trial_graph(Path(trial))], Path(trial), self.target, ledger)
        return (*requests, *_requests(graphs, source, self.target, ledger))


@dataclass(frozen=True, kw_only=True)
class _HubCompilation:
    """One compilation of graphs for one target by jobs of Qualcomm AI Hub."""

    target: AiHubTarget
    jobs: HubJobs

    def compile(self, graphs: Sequence[Graph], source: Path, folder: Path) -> CompileResult:
        """Compile graphs by AI Hub jobs, link them if the target needs context binaries, and download. Return a CompileResult."""
        compiled = {graph.file.path: self._compile_job(graph, source / graph.file.path) for graph in graphs}
        self.jobs.wait(compiled)
        match self.target.runtime:
            case "precompiled_qnn_onnx":
                return _merged_results([self._onnx(graph, compiled[graph.file.path], folder) for graph in graphs])
            case "qnn_context_binary":
                return self._link(graphs, compiled, folder)
            case _:
                assert_never(self.target.runtime)

    def _compile_job(self, graph: Graph, path: Path) -> str:
        options, device, name, sha256 = compile_options(graph, self.target), self.target.device, graph.file.path, sha256_of(path)
        return self.jobs.submit_once(
            lambda: self.jobs.hub.submit_compile(self.jobs.upload_once(path, name), device, options, job_name(name, sha256)),
            graph=sha256,
            device=device,
            options=options,
        )

    def _onnx(self, graph: Graph, job: str, folder: Path) -> CompileResult:
        path = folder / graph.file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        model = self._download(graph.file.path, job, path.parent, lambda file: single_file(file, path, graph))
        outside = nodes_outside_context(path)
        if outside:
            log.warning("%s: AI Hub left nodes to the CPU: %s", graph.file.path, ", ".join(outside))
        return self._result([replace(graph, file=file_ref(folder, path))], model, caveats=(Caveat.CPU_FALLBACK,) * bool(outside))

    def _link(self, graphs: Sequence[Graph], compiled: Mapping[str, str], folder: Path) -> CompileResult:
        """Link all tasks' graphs into one context binary per component and variant, to share weights. Return a CompileResult."""
        groups = _linked_together(graphs)
        links = {str(path): self._link_job(str(path), group, compiled) for path, group in groups.items()}
        self.jobs.wait(links)
        return _merged_results([self._binary(path, group, links[str(path)], folder) for path, group in groups.items()])

    def _link_job(self, name: str, graphs: Sequence[Graph], compiled: Mapping[str, str]) -> str:
        models = [self.jobs.hub.target_model(compiled[graph.file.path]).model for graph in graphs]
        options, device, known_as = link_options(self.target), self.target.device, job_name(name, digest_of({"models": models}))
        return self.jobs.submit_once(
            lambda: self.jobs.hub.submit_link(models, device, options, known_as), models=models, device=device, options=options
        )

    def _binary(self, name: Path, graphs: Sequence[Graph], job: str, folder: Path) -> CompileResult:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        model = self._download(str(name), job, path.parent, lambda file: file.replace(path))
        for graph in graphs:
            inputs, expected = model.inputs.get(graph_name(graph)), {spec.name for spec in graph.inputs}
            if inputs is None or set(inputs) != expected:
                raise BuildError(
                    f"AI Hub's context binary (model {model.model}) has wrong inputs: graph '{graph_name(graph)}' has "
                    f"inputs {', '.join(sorted(inputs or ())) or 'unknown'}; expected {', '.join(sorted(expected))}"
                )
        return self._result([replace(graph, file=file_ref(folder, path)) for graph in graphs], model)

    def _download(self, name: str, job: str, folder: Path, place: Callable[[Path], object]) -> HostedModel:
        """Download a job's compiled model. Pass the temporary file's path to `place`, which saves it. Return the HostedModel."""
        self.jobs.notify(f"download {name}")
        model = self.jobs.hub.target_model(job)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            file = self.jobs.hub.download(model.model, Path(temporary))
            if file.stat().st_size == 0:
                raise BuildError(f"AI Hub's compiled model of '{name}' (model {model.model}) is empty")
            place(file)
        return model

    def _result(self, graphs: Sequence[Graph], model: HostedModel, caveats: tuple[Caveat, ...] = ()) -> CompileResult:
        """Return the CompileResult of one compiled file. Record the file's AI Hub model id, so that runs need not upload it."""
        self.jobs.ledger.put("models", graphs[0].file.sha256, model.model)
        reported = {f"ai_hub.{key}": value for key, value in model.metadata.items() if key.endswith(("_version", "_soc_model"))}
        versions = {"qai-hub": version("qai_hub")} | reported
        return CompileResult(graphs=tuple(graphs), versions=versions, caveats=caveats)


def _requests(graphs: Sequence[Graph], source: Path, target: AiHubTarget, ledger: Ledger | None) -> Iterator[HubRequest]:
    for graph in graphs:
        yield from hub_jobs.compile_requests(graph, source / graph.file.path, target, ledger)
    products = [graph.file.path for graph in graphs]
    if target.runtime == "qnn_context_binary":
        products = [str(path) for path in _linked_together(graphs)]
        for name in products:  # the job's name ends with a digest of the compiled models' ids
            yield HubRequest(kind="link", name=f"quadbench {name}", device=target.device, options=link_options(target))
    yield from (HubRequest(kind="download", name=name) for name in products)


def _need_trial(graphs: Sequence[Graph]) -> bool:
    return any(spec.name.startswith(LORA_PREFIX) for graph in graphs for spec in graph.inputs)


def _linked_together(graphs: Sequence[Graph]) -> dict[Path, list[Graph]]:
    """Return the graphs that one context binary holds, by the binary's path: all tasks of a component and variant."""
    groups: dict[Path, list[Graph]] = {}
    for graph in graphs:
        groups.setdefault(Path(graph.variant) / f"{graph.component}.bin", []).append(graph)
    return groups


def _merged_results(products: Sequence[CompileResult]) -> CompileResult:
    return CompileResult(
        graphs=tuple(graph for product in products for graph in product.graphs),
        versions={key: value for product in products for key, value in product.versions.items()},
        caveats=tuple(dict.fromkeys(caveat for product in products for caveat in product.caveats)),
    )


def write_trial_graph(folder: Path) -> Graph:
    """Write a fixed convolution with LoRA inputs to trial.onnx and return its Graph. Equal files let AI Hub jobs be reused."""
    import onnx

    path, model = folder / "trial.onnx", onnx.parser.parse_model(_TRIAL)
    values = {
        "activation.scale": np.float32(_ACTIVATION_SCALE),
        "activation.zero": np.uint16(32768),
        "lora.scale": np.float32(_LORA_SCALE),
        "w.q": np.random.default_rng(0).integers(-127, 128, (8, 8, 3, 3)).astype(np.int8),
        "w.scale": np.float32(1 / 127),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())
    onnx.save(model, path)
    inputs = (
        TensorSpec(name="x", shape=(1, 8, 8, 8), dtype="float32"),
        TensorSpec(name="lora.trial.down", shape=(4, 8, 3, 3), dtype="int16", scale=_LORA_SCALE),
        TensorSpec(name="lora.trial.up", shape=(8, 4, 1, 1), dtype="int16", scale=_LORA_SCALE),
    )
    outputs = (TensorSpec(name="y", shape=(1, 8, 8, 8), dtype="float32"),)
    return Graph(variant=Variant.SHARED, component=Component.UNET, file=file_ref(folder, path), inputs=inputs, outputs=outputs)
