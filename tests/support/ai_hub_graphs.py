"""AI Hub graphs: a folder -> a few small graphs, and their way through the real client to a service on loopback."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from quadbench.ai_hub.client import Backoff
from quadbench.artifacts import Component, Graph, Variant
from quadbench.compile.ai_hub import AiHubCompiler, write_trial_graph
from quadbench.compile.graph_compiler import CompileResult
from quadbench.target.targets import AiHubTarget
from support.ai_hub_service import DEVICE, AiHubService, ai_hub_service
from support.bundles import write_graph
from support.small_graphs import model_of

Sources = tuple[list[Graph], Path]  # graphs, and the folder that they lie in
FAST = Backoff(first_s=0.01, retries=2, poll_first_s=0.01, poll_longest_s=0.05)


@contextmanager
def hurried_service(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AiHubService]:
    """Run the service and configure the client for it; the client waits for nothing."""
    import qai_hub.util.session as session

    monkeypatch.setattr(session, "BACKOFF_FACTOR", 0.01)  # the client's own waits, which it reads at each request
    monkeypatch.setattr(session, "MAX_RETRIES", 2)
    # Those that it read when it was loaded.
    monkeypatch.setattr("backoff._sync.time", SimpleNamespace(sleep=lambda _seconds: None))
    with ai_hub_service(folder) as (running, config):
        monkeypatch.setenv("QAIHUB_CLIENT_INI", str(config))
        yield running


def target_of(**changes: object) -> AiHubTarget:
    """Return the service's only device as a target; `changes` are its other fields."""
    return AiHubTarget.model_validate({"backend": "ai_hub", "device": DEVICE, "runtime": "precompiled_qnn_onnx", **changes})


def compile_at_hub(
    graphs: Sources, tmp_path: Path, target: AiHubTarget | None = None, notify: Callable[[str], None] = lambda _step: None
) -> CompileResult:
    """Compile graphs at the service into `compiled` below a folder that also has the ledger."""
    compiler = AiHubCompiler(target=target or target_of(), ledger=tmp_path / "ai-hub.json", pace=FAST)
    return compiler.compile_all(*graphs, tmp_path / "compiled", notify)


def write_graphs(folder: Path) -> Sources:
    """Write a shared U-Net that takes LoRA weights, two of one task each, and a decoder that takes none, all of two layers."""
    folder.mkdir()
    trial = onnx.load(folder / write_trial_graph(folder).file.path)
    tasks = ("restyle", "remove-object")
    unets = [write_graph(folder, trial), *(write_graph(folder, trial, variant=Variant.PER_GRAPH, task=task) for task in tasks)]
    return [*unets, write_decoder(folder)], folder


def write_decoder(folder: Path) -> Graph:
    """Write a decoder that multiplies a latent (1, 4) by constants."""
    weights = np.random.default_rng(0).standard_normal((1, 4)).astype(np.float32)
    nodes = [onnx.helper.make_node("Mul", ["latent", "factor"], ["y"])]
    model = model_of(nodes, {"latent": (1, 4)}, {"factor": weights}, (1, 4))
    return write_graph(folder, model, component=Component.VAE_DECODER)
