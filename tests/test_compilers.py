"""Compilers: every one that runs on this machine keeps the contract."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")  # the graphs are written here

from onnx import helper, load
from support.bundles import write_bundle
from support.compiler_contract import CompilerContract, compile_for
from support.small_graphs import model_of

from quadbench.results.layout import Layout
from quadbench.target.targets import AiHubTarget, LiteRtTarget, OnnxRuntimeTarget, QnnTarget, Target, ToolchainTarget

# A vendor's command line, as far as a compiler needs to be one: ONNX Runtime's optimizer in a process of its own.
COMMAND = """\
import sys
import onnxruntime
options = onnxruntime.SessionOptions()
options.optimized_model_filepath = sys.argv[2]
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""


class TestOnnxRuntime(CompilerContract):
    @pytest.fixture(scope="class", params=["cpu", "xnnpack"])
    @classmethod
    def target(cls, request: pytest.FixtureRequest) -> Target:
        return OnnxRuntimeTarget(backend="onnxruntime", execution_provider=request.param)


class TestQnn(CompilerContract):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Target:
        pytest.importorskip("onnxruntime_qnn")
        return QnnTarget(backend="qnn", htp_arch="v79", soc_model=69)


class TestLiteRt(CompilerContract):
    @pytest.fixture(scope="class", params=[None, pytest.param("SM8750", marks=pytest.mark.slow)])
    @classmethod
    def target(cls, request: pytest.FixtureRequest) -> Target:
        pytest.importorskip("ai_edge_litert")
        pytest.importorskip("onnxruntime_qnn")
        return LiteRtTarget(backend="litert", soc=request.param)


class TestAiHub(CompilerContract):
    """Through the real client to a service on loopback, which compiles with ONNX Runtime's optimizer."""

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
        pytest.importorskip("qai_hub")
        from support.ai_hub_service import DEVICE, ai_hub_service

        with pytest.MonkeyPatch.context() as patch, ai_hub_service(tmp_path_factory.mktemp("service")) as (_, config):
            patch.setenv("QAIHUB_CLIENT_INI", str(config))
            yield AiHubTarget(backend="ai_hub", device=DEVICE, runtime="precompiled_qnn_onnx")


class TestToolchain(CompilerContract):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Target:
        return ToolchainTarget(
            backend="toolchain",
            name="optimizer",
            commands=((sys.executable, "-c", COMMAND, "{input}", "model.opt"),),
            product="*.opt",
            version={
                "command": (sys.executable, "-c", "import importlib.metadata; print(importlib.metadata.version('onnxruntime'))"),
                "pattern": r"(\S+)",
            },
            timeout_s=120,
            install="pip install onnxruntime",
        )


@pytest.mark.parametrize(("execution_provider", "expected"), [("cpu", ["FusedConv"]), ("xnnpack", ["Conv", "Relu"])])
def test_nodes_are_fused_for_the_cpu_s_provider_alone(tmp_path: Path, execution_provider: str, expected: list[str]) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    model = model_of(nodes, {"x": (1, 4, 8, 8)}, {"w": np.ones((4, 4, 1, 1), np.float32)}, (1, 4, 8, 8))
    target = OnnxRuntimeTarget(backend="onnxruntime", execution_provider=execution_provider)
    compiled = compile_for(target, write_bundle(tmp_path / "bundle", model), Layout(tmp_path))
    product = load(compiled.path(compiled.artifact.graphs[0].file))
    assert [node.op_type for node in product.graph.node] == expected
