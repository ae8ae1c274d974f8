"""The built-in model on Qualcomm's HTP emulator: each graph computes what ONNX Runtime's CPU does, under any adapter."""

from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime_qnn")

import onnxruntime
from support.htp_emulator import run_all_on_emulator

from quadbench import zoo
from quadbench.artifacts import LORA_PREFIX, Component, Graph, StoredBundle, StoredCompiled, Variant
from quadbench.compile import compile_bundle
from quadbench.quad.build import build
from quadbench.quad.runner import mixed_inputs
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.target.targets import QnnTarget

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TARGET = QnnTarget(backend="qnn", htp_arch="v79", soc_model=69)
LEAST_DB = 40  # measured: over 60
MOST_DB_BETWEEN_ADAPTERS = 30  # measured: at most 21
Feed = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def built(layout: Layout) -> StoredBundle:
    """Five adapters and none on one U-Net; the graphs of single tasks would take minutes more."""
    recipe = load_recipe("use-cases").model_copy(update={"baselines": ()})
    return build(recipe, layout)


@pytest.fixture(scope="module")
def compiled(built: StoredBundle, layout: Layout) -> StoredCompiled:
    return compile_bundle(built, TARGET, "qnn-v79-69", layout)


@pytest.fixture(scope="module")
def u_net_outputs(built: StoredBundle, compiled: StoredCompiled) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The outputs of CPU and emulator by adapter, or "none": from one session of each, with the same other inputs."""
    graph = _graph(built, Component.UNET)
    lora = [spec for spec in graph.inputs if spec.name.startswith(LORA_PREFIX)]
    adapters = {
        a.name: mixed_inputs([(built.path(a.file), 1.0)], lora) for a in built.artifact.adapters if a.variant is Variant.SHARED
    }
    adapters["none"] = {name: np.zeros_like(tensor) for name, tensor in adapters["restyle"].items()}
    data = _data(graph, built)
    outputs = _on_cpu_and_emulator(built, compiled, graph, [data | lora for lora in adapters.values()])
    return dict(zip(adapters, outputs, strict=True))


def _graph(built: StoredBundle, component: Component) -> Graph:
    return next(g for g in built.artifact.graphs if (g.variant, g.component) == (Variant.SHARED, component))


def _on_cpu_and_emulator(
    built: StoredBundle, compiled: StoredCompiled, graph: Graph, feeds: list[Feed]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return ONNX Runtime's output on the graph that was compiled, and the emulator's, for each of the feeds."""
    session = onnxruntime.InferenceSession(built.path(graph.file), providers=["CPUExecutionProvider"])
    expected = [session.run(None, feed)[0] for feed in feeds]
    emulated = run_all_on_emulator(compiled.path(graph.file), feeds, timeout_s=1200)
    return list(zip(expected, emulated, strict=True))


def _sqnr_db(exact: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(exact - other).sum()))


def _data(graph: Graph, built: StoredBundle) -> Feed:
    """Return seeded noise for floats, a prompt of the first task for tokens, and no LoRA inputs."""
    rng = np.random.default_rng(0)
    tokens = np.array([built.artifact.tasks[0].items[0].tokens["input_ids"]], np.int32)
    specs = [spec for spec in graph.inputs if not spec.name.startswith("lora.")]
    return {s.name: tokens if s.dtype == "int32" else rng.standard_normal(s.shape).astype(np.float32) for s in specs}


@pytest.mark.parametrize("component", [part for part in Component if part is not Component.UNET])
def test_a_component_computes_what_the_cpu_does(component: Component, built: StoredBundle, compiled: StoredCompiled) -> None:
    graph = _graph(built, component)
    ((expected, emulated),) = _on_cpu_and_emulator(built, compiled, graph, [_data(graph, built)])
    assert _sqnr_db(expected, emulated) > LEAST_DB


@pytest.mark.parametrize("adapter", [*zoo.ADAPTERS, "none"])
def test_one_loaded_u_net_computes_what_the_cpu_does_under_an_adapter(
    adapter: str, u_net_outputs: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    assert _sqnr_db(*u_net_outputs[adapter]) > LEAST_DB


def test_another_adapter_on_the_loaded_u_net_gives_another_output(
    u_net_outputs: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    outputs = [output for _, output in u_net_outputs.values()]
    assert max(_sqnr_db(one, other) for one, other in combinations(outputs, 2)) < MOST_DB_BETWEEN_ADAPTERS


def test_convolutions_are_among_the_lora_inputs(built: StoredBundle) -> None:
    kernels = {spec.shape[2:] for spec in _graph(built, Component.UNET).inputs if spec.name.endswith(".down")}
    assert kernels >= {(), (3, 3)}


def test_every_graph_is_compiled(built: StoredBundle, compiled: StoredCompiled) -> None:
    wanted = {graph.file.path for graph in built.artifact.graphs if graph.variant.is_quantized}
    assert {graph.file.path for graph in compiled.artifact.graphs} == wanted
    assert compiled.artifact.costs.keys() == wanted
