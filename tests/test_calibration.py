"""Calibration takes each tensor's range before the next one is computed, so that they are not all in memory together."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("torch")

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from quadbench.quad.quantize.calibration import float_tensors, with_ranges

LENGTH = 6


def test_a_tensor_is_done_with_before_the_next_is_computed(tmp_path: Path) -> None:
    names = ["x", *(f"t{i}" for i in range(LENGTH))]
    nodes = [helper.make_node(("Tanh", "Sigmoid")[i % 2], [given], [result]) for i, (given, result) in enumerate(pairwise(names))]
    x, last = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in (names[0], names[-1]))
    chain = helper.make_model(helper.make_graph(nodes, "chain", [x], [last]), opset_imports=[helper.make_opsetid("", 21)])
    ran = _operators_run(with_ranges(chain, float_tensors(chain)), tmp_path)
    computed = [i for i, op in enumerate(ran) if op in ("Tanh", "Sigmoid")]
    between = [ran[first:last] for first, last in pairwise(computed)]
    assert [(part.count("ReduceMin"), part.count("ReduceMax")) for part in between] == [(1, 1)] * (LENGTH - 1)


def _operators_run(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Return the names of the operators that ONNX Runtime ran, in their order."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros((2, 3), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text())
    return [event["args"]["op_name"] for event in events if event["name"].endswith("kernel_time")]
