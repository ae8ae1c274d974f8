"""The built-in model on Qualcomm's HTP emulator: each graph computes what ONNX Runtime's CPU does, under any adapter."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime_qnn")

import onnxruntime
from safetensors.numpy import load_file
from support.htp_emulator import run_all_on_emulator

from quadbench import zoo
from quadbench.artifacts import Bundle, Component, Graph, Variant
from quadbench.compile import Compiled, compile_bundle
from quadbench.quad.build import build
from quadbench.recipe import load_recipe
from quadbench.target.targets import QnnTarget

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TARGET = QnnTarget(backend="qnn", htp_arch="v79", soc_model=69)
LEAST_DB = 40  # measured: over 60
MOST_DB_BETWEEN_ADAPTERS = 30  # measured: at most 21
Feed = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """Five adapters and none on one U-Net; the graphs of single tasks would take minutes more."""
    recipe = load_recipe("use-cases").model_copy(update={"baselines": ()})
    return build(recipe, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def compiled(built: tuple[Bundle, Path], tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_bundle(*built, TARGET, "qnn-v79-69", tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def u_net_outputs(built: tuple[Bundle, Path], compiled: Compiled) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Adapter or "none" -> what the CPU and the emulator gave, from one session of each and with the same other inputs."""
    bundle, folder = built
    graph = _graph(built, Component.UNET)
    adapters = {a.name: load_file(folder / a.file.path) for a in bundle.adapters if a.variant is Variant.SHARED}
    adapters["none"] = {name: np.zeros_like(tensor) for name, tensor in adapters["restyle"].items()}
    data = _data(graph, built)
    outputs = _on_cpu_and_emulator(built, compiled, graph, [data | lora for lora in adapters.values()])
    return dict(zip(adapters, outputs, strict=True))


def _graph(built: tuple[Bundle, Path], component: Component) -> Graph:
    return next(g for g in built[0].graphs if (g.variant, g.component) == (Variant.SHARED, component))


def _on_cpu_and_emulator(
    built: tuple[Bundle, Path], compiled: Compiled, graph: Graph, feeds: list[Feed]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """ONNX Runtime's output on the graph that was compiled, and the emulator's, for each of the feeds."""
    session = onnxruntime.InferenceSession(built[1] / graph.file.path, providers=["CPUExecutionProvider"])
    expected = [session.run(None, feed)[0] for feed in feeds]
    found = run_all_on_emulator(compiled.folder / graph.file.path, feeds, timeout_s=1200)
    return list(zip(expected, found, strict=True))


def _sqnr_db(exact: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(exact - found).sum()))


def _data(graph: Graph, built: tuple[Bundle, Path]) -> Feed:
    """Seeded noise for floats, a prompt of the first task for tokens; no LoRA inputs."""
    rng = np.random.default_rng(0)
    tokens = np.array([built[0].tasks[0].items[0].input_ids], np.int32)
    specs = [spec for spec in graph.inputs if not spec.name.startswith("lora.")]
    return {s.name: tokens if s.dtype == "int32" else rng.standard_normal(s.shape).astype(np.float32) for s in specs}


@pytest.mark.parametrize("component", [part for part in Component if part is not Component.UNET])
def test_a_component_computes_what_the_cpu_does(component: Component, built: tuple[Bundle, Path], compiled: Compiled) -> None:
    graph = _graph(built, component)
    ((expected, found),) = _on_cpu_and_emulator(built, compiled, graph, [_data(graph, built)])
    assert _sqnr_db(expected, found) > LEAST_DB


@pytest.mark.parametrize("adapter", [*zoo.ADAPTERS, "none"])
def test_one_loaded_u_net_computes_what_the_cpu_does_under_an_adapter(
    adapter: str, u_net_outputs: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    assert _sqnr_db(*u_net_outputs[adapter]) > LEAST_DB


def test_another_adapter_on_the_loaded_u_net_gives_another_output(
    u_net_outputs: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    found = [output for _, output in u_net_outputs.values()]
    assert max(_sqnr_db(one, other) for one, other in combinations(found, 2)) < MOST_DB_BETWEEN_ADAPTERS


def test_convolutions_are_among_the_lora_inputs(built: tuple[Bundle, Path]) -> None:
    kernels = {spec.shape[2:] for spec in _graph(built, Component.UNET).inputs if spec.name.endswith(".down")}
    assert kernels >= {(), (3, 3)}


def test_every_graph_is_compiled(built: tuple[Bundle, Path], compiled: Compiled) -> None:
    wanted = {graph.file.path for graph in built[0].graphs if graph.variant.is_quantized}
    assert {graph.file.path for graph in compiled.compiled.graphs} == wanted
    assert compiled.compiled.costs.keys() == wanted
