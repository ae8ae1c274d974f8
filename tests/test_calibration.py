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

from quadbench.quad.quantize.calibration import float_tensors, with_histograms, with_ranges
from quadbench.quad.quantize.encodings import Range

LENGTH = 6


def test_a_tensor_is_done_with_before_the_next_is_computed(tmp_path: Path) -> None:
    chain = _chain()
    between = _between_tensors(_operators_run(with_ranges(chain, float_tensors(chain)), tmp_path))
    assert [(part.count("ReduceMin"), part.count("ReduceMax")) for part in between] == [(1, 1)] * (LENGTH - 1)


def test_a_tensor_is_counted_before_the_next_is_computed(tmp_path: Path) -> None:
    chain = _chain()
    counted = with_histograms(chain, dict.fromkeys(float_tensors(chain), Range(low=-1.0, high=1.0)))
    between = _between_tensors(_operators_run(counted, tmp_path))
    assert [part.count("ScatterElements") for part in between] == [1] * (LENGTH - 1)


def _chain() -> onnx.ModelProto:
    names = ["x", *(f"t{i}" for i in range(LENGTH))]
    nodes = [helper.make_node(("Tanh", "Sigmoid")[i % 2], [given], [result]) for i, (given, result) in enumerate(pairwise(names))]
    x, last = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in (names[0], names[-1]))
    return helper.make_model(helper.make_graph(nodes, "chain", [x], [last]), opset_imports=[helper.make_opsetid("", 21)])


def _between_tensors(ran: list[str]) -> list[list[str]]:
    """Return what ran between the operators that compute one tensor of the chain and the next."""
    computed = [i for i, op in enumerate(ran) if op in ("Tanh", "Sigmoid")]
    return [ran[first:last] for first, last in pairwise(computed)]


def _operators_run(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Return the names of the operators that ONNX Runtime ran, in their order."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    types = {"tensor(float)": np.float32, "tensor(int32)": np.int32}
    session.run(None, {given.name: np.zeros(given.shape, types[given.type]) for given in session.get_inputs()})
    events = json.loads(Path(session.end_profiling()).read_text())
    return [event["args"]["op_name"] for event in events if event["name"].endswith("kernel_time")]
