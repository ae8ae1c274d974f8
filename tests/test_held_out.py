"""A build judges its quantized U-Nets on held-out inputs: SQNR at every step, and the activations that clip."""

import numpy as np
import pytest

pytest.importorskip("torch")  # the tiny bundle is built here

import torch
from onnx import helper
from support.small_graphs import model_of

from quadbench.artifacts import Bundle, StoredBundle
from quadbench.artifacts.bundle import StepSqnr, TrajectorySqnr
from quadbench.quad.adapters.adapter import Adapter, LoraPair
from quadbench.quad.adapters.lora_profile import LoraProfile
from quadbench.quad.held_out_inputs import integers_as_run
from quadbench.quad.quantize.calibration import clipping_of
from quadbench.quad.quantize.encodings import Encoding, symmetric
from quadbench.results.manifest import read_manifest

ONE = Encoding(dtype="uint8", scale=0.1, zero_point=0)  # 0 to 25.5


def test_values_outside_their_range_are_counted_and_the_worst_tensor_is_first() -> None:
    nodes = [helper.make_node("Mul", ["x", "two"], ["m"]), helper.make_node("Add", ["m", "two"], ["y"])]
    model = model_of(nodes, {"x": (4,)}, {"two": np.float32(2)}, (4,))
    feeds = [{"x": np.array(values, np.float32)} for values in ([1, 2, 3, 4], [5, 12, 13, 14])]
    clipping = clipping_of(model, dict.fromkeys(("x", "m", "y"), ONE), feeds, variant="shared", task=None)
    assert (clipping.runs, clipping.tensors, clipping.clipped) == (2, 3, 2)
    assert [(worst.tensor, worst.share) for worst in clipping.worst] == [("y", 3 / 8), ("m", 2 / 8)]
    assert clipping.share == pytest.approx(5 / 24)
    assert clipping.worst[0].beyond == pytest.approx((30 - 25.55) / 25.6, rel=1e-3)


def test_what_rounds_to_the_last_integer_does_not_clip_and_what_is_moved_counts_once() -> None:
    model = model_of([helper.make_node("Reshape", ["x", "shape"], ["y"])], {"x": (2,)}, {"shape": np.array([2, 1])}, (2, 1))
    feeds = [{"x": np.array([25.54, -0.04], np.float32)}]
    clipping = clipping_of(model, {"x": ONE, "y": ONE}, feeds, variant="shared", task=None)
    assert (clipping.tensors, clipping.clipped, clipping.share, clipping.worst) == (1, 0, 0.0, ())


def test_every_task_and_variant_of_a_bundle_is_judged_step_by_step(tiny_bundle: StoredBundle) -> None:
    held_out = read_manifest(tiny_bundle.folder, Bundle).artifact.held_out
    assert held_out is not None
    steps = {task.name: task.steps for task in tiny_bundle.artifact.tasks}
    judged = {(one.task, one.variant): len(one.steps) for one in held_out.trajectories}
    assert judged == {(name, variant): count for name, count in steps.items() for variant in ("shared", "per-graph")}
    for one in held_out.trajectories:
        assert one.worst is not None
        assert one.worst.sqnr_db is not None
        assert one.sqnr_db is not None
        assert 20 < one.worst.sqnr_db <= one.sqnr_db
    assert [(one.variant, one.task) for one in held_out.clippings] == [("shared", None), *(("per-graph", name) for name in steps)]
    assert all(one.clipped <= one.tensors and one.share < 0.01 for one in held_out.clippings)


def test_an_adapter_that_clips_is_judged_at_a_smaller_weight_as_a_device_scales_it() -> None:
    pair = LoraPair(down=torch.tensor([[1.0]]), up=torch.tensor([[2.0], [0.5]]))
    encodings = {f"lora.s.{side}": symmetric(1.0, "int8") for side in ("down", "up")}
    lora = LoraProfile(adapters={"a": Adapter(name="a", pairs={"s": pair})}, anchor=None, encodings=encodings)
    integers = integers_as_run(lora, {"a": 0.5}, {"lora.s.down": (2, 1), "lora.s.up": (2, 2)})
    assert integers["lora.s.down"].tolist() == [[127], [0]]
    assert integers["lora.s.up"].tolist() == [[64, 0], [32, 0]]  # 2.0 was clipped to 127, of which this is half


def test_the_worst_step_is_that_with_the_lowest_sqnr() -> None:
    steps = tuple(StepSqnr(step=i, timestep=0.0, sqnr_db=db) for i, db in enumerate((40.0, None, 31.0, 35.0)))
    assert TrajectorySqnr(task="t", variant="shared", inputs=1, sqnr_db=36.0, steps=steps).worst == steps[2]
