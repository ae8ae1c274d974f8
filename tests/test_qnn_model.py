"""The built-in model on Qualcomm's HTP emulator: each graph computes what ONNX Runtime's CPU does, under every adapter."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime_qnn")

import onnxruntime
from htp_emulator import run_all_on_emulator
from safetensors.numpy import load_file

from quadbench.artifacts import Bundle, Component, Graph, Variant
from quadbench.compile import Compiled, compile_bundle
from quadbench.device_profile import QnnTarget
from quadbench.quad.build import build
from quadbench.recipe import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TARGET = QnnTarget(backend="qnn", htp_arch="v79", soc_model=69)
LEAST_DB = 40  # measured: over 60
Feed = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    return build(load_recipe("quickstart"), tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def compiled(built: tuple[Bundle, Path], tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_bundle(*built, TARGET, "qnn-v79-69", tmp_path_factory.mktemp("compiled"))


def _graph(built: tuple[Bundle, Path], component: Component) -> Graph:
    return next(g for g in built[0].graphs if (g.variant, g.component) == (Variant.SHARED, component))


def _distances_db(built: tuple[Bundle, Path], compiled: Compiled, graph: Graph, feeds: list[Feed]) -> list[float]:
    """SQNR of the emulator's outputs against ONNX Runtime's on the graph that was compiled."""
    session = onnxruntime.InferenceSession(built[1] / graph.file.path, providers=["CPUExecutionProvider"])
    expected = [session.run(None, feed)[0] for feed in feeds]
    found = run_all_on_emulator(compiled.folder / graph.file.path, feeds, timeout_s=1200)
    return [float(10 * np.log10(np.square(a).sum() / np.square(a - b).sum())) for a, b in zip(expected, found, strict=True)]


def _data(graph: Graph, built: tuple[Bundle, Path]) -> Feed:
    """Seeded noise for floats, a prompt of the first task for tokens; no LoRA inputs."""
    rng = np.random.default_rng(0)
    tokens = np.array([built[0].tasks[0].items[0].input_ids], np.int32)
    specs = [spec for spec in graph.inputs if not spec.name.startswith("lora.")]
    return {s.name: tokens if s.dtype == "int32" else rng.standard_normal(s.shape).astype(np.float32) for s in specs}


@pytest.mark.parametrize("component", [part for part in Component if part is not Component.UNET])
def test_a_component_computes_what_the_cpu_does(component: Component, built: tuple[Bundle, Path], compiled: Compiled) -> None:
    graph = _graph(built, component)
    assert min(_distances_db(built, compiled, graph, [_data(graph, built)])) > LEAST_DB


def test_one_loaded_u_net_computes_what_the_cpu_does_under_every_adapter_and_none(
    built: tuple[Bundle, Path], compiled: Compiled
) -> None:
    bundle, folder = built
    graph = _graph(built, Component.UNET)
    adapters = [load_file(folder / a.file.path) for a in bundle.adapters if a.variant is Variant.SHARED]
    none = {name: np.zeros_like(tensor) for name, tensor in adapters[0].items()}
    feeds = [_data(graph, built) | lora for lora in (*adapters, none)]
    assert any(lora.endswith("conv1.down") for lora in none)
    assert min(_distances_db(built, compiled, graph, feeds)) > LEAST_DB


def test_every_graph_is_compiled_those_of_single_tasks_too(built: tuple[Bundle, Path], compiled: Compiled) -> None:
    wanted = {graph.file.path for graph in built[0].graphs if graph.variant.is_quantized}
    assert {graph.file.path for graph in compiled.compiled.graphs} == wanted
    assert compiled.compiled.costs.keys() == wanted
