"""A few small graphs, and their way through AI Hub's real client to a service on loopback, without the client's waits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from quadbench.ai_hub import Pace
from quadbench.artifacts import Component, Graph, TensorSpec, Variant
from quadbench.compile.ai_hub import AiHubCompiler
from quadbench.compile.product import Product
from quadbench.compile.trial import write_trial_graph
from quadbench.results.manifest import file_ref
from quadbench.target.targets import AiHubTarget
from support.ai_hub_service import DEVICE, AiHubService, ai_hub_service

Sources = tuple[list[Graph], Path]  # graphs, and the folder that they lie in
FAST = Pace(first_s=0.01, retries=2, poll_first_s=0.01, poll_longest_s=0.05)


@contextmanager
def hurried_service(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AiHubService]:
    """The service, as the client's configuration; the client waits for nothing."""
    import qai_hub.util.session as session

    monkeypatch.setattr(session, "BACKOFF_FACTOR", 0.01)  # the client's own waits, which it reads at each request
    monkeypatch.setattr(session, "MAX_RETRIES", 2)
    # Those that it read when it was loaded.
    monkeypatch.setattr("backoff._sync.time", SimpleNamespace(sleep=lambda _seconds: None))
    with ai_hub_service(folder) as (running, config):
        monkeypatch.setenv("QAIHUB_CLIENT_INI", str(config))
        yield running


def target_of(**changes: object) -> AiHubTarget:
    return AiHubTarget.model_validate({"backend": "ai_hub", "device": DEVICE, "runtime": "precompiled_qnn_onnx", **changes})


def compile_at_hub(
    graphs: Sources, tmp_path: Path, target: AiHubTarget | None = None, notify: Callable[[str], None] = lambda _step: None
) -> Product:
    compiler = AiHubCompiler(target=target or target_of(), ledger=tmp_path / "ai-hub.json", pace=FAST)
    return compiler.compile_all(*graphs, tmp_path / "compiled", notify)


def write_graphs(folder: Path) -> Sources:
    """A shared U-Net that takes LoRA weights, two of one task each, and a decoder that takes none, all of two layers."""
    folder.mkdir()
    trial = write_trial_graph(folder)
    unets = [
        _copy(trial, folder, "shared/unet.onnx"),
        _copy(trial, folder, "per-graph/restyle/unet.onnx", variant=Variant.PER_GRAPH, task="restyle"),
        _copy(trial, folder, "per-graph/remove-object/unet.onnx", variant=Variant.PER_GRAPH, task="remove-object"),
    ]
    return [*unets, write_decoder(folder)], folder


def _copy(graph: Graph, folder: Path, path: str, **changes: object) -> Graph:
    """Other bytes, so that another digest."""
    model = onnx.load(folder / graph.file.path)
    model.doc_string = path
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / path)
    return replace(graph, file=file_ref(folder, folder / path), **changes)


def write_decoder(folder: Path) -> Graph:
    path = folder / "shared/vae_decoder.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    specs = [TensorSpec(name=name, shape=(1, 4), dtype="float32") for name in ("latent", "image")]
    infos = [onnx.helper.make_tensor_value_info(spec.name, onnx.TensorProto.FLOAT, spec.shape) for spec in specs]
    nodes = [onnx.helper.make_node("Mul", ["latent", "factor"], ["image"])]
    weights = np.random.default_rng(0).standard_normal((1, 4)).astype(np.float32)
    body = onnx.helper.make_graph(nodes, "g", infos[:1], infos[1:], [onnx.numpy_helper.from_array(weights, "factor")])
    onnx.save(onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10), path)
    return Graph(
        variant=Variant.SHARED,
        component=Component.VAE_DECODER,
        file=file_ref(folder, path),
        inputs=tuple(specs[:1]),
        outputs=tuple(specs[1:]),
    )
