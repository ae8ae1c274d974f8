"""Compilers: the contract over every one that runs on this machine."""

import sys

import pytest

pytest.importorskip("onnx")  # the graphs are written here

from contracts.compiler_contract import CompilerContract

from quadbench.device_profile import OnnxRuntimeTarget, Target
from quadbench.toolchain_target import ToolchainTarget

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
                "command": (sys.executable, "-c", "import onnxruntime; print(onnxruntime.__version__)"),
                "pattern": r"(\S+)",
            },
            timeout_s=120,
            install="pip install onnxruntime",
        )
