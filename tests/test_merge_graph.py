"""The merge graph of one site: how often the sum of base and adapter is rounded."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from onnx import ModelProto, TensorProto, helper, numpy_helper
from support.small_graphs import RNG, Feed, typed_model

from quadbench.quad.model.initializers import open_session, value
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.merging import RESIDUAL, make_mergeable, merge_adapter

OUT, IN, RANK, SIZE = 96, 64, 8, 4
LORA = {f"lora.s.{part}": Encoding(dtype="int16", scale=2.0**-14) for part in ("down", "up")}
SCALES = {"matrix": 1.0, "filter": 0.5}  # of the base's weights


def site(kind: str) -> tuple[ModelProto, np.ndarray]:
    """A site with a bias, as the exporter writes it, and the base's weight."""
    kernel = () if kind == "matrix" else (3, 3)
    shape = (2, IN) if kind == "matrix" else (1, IN, SIZE, SIZE)
    weight = (SCALES[kind] * RNG.normal(size=(OUT, IN, *kernel))).astype(np.float32)
    operator, options = ("Gemm", {"transB": 1}) if kind == "matrix" else ("Conv", {"pads": [1] * 4})
    plain = options if kind == "matrix" else {}
    nodes = [
        helper.make_node(operator, ["x", "w", "b"], ["base"], **options),
        helper.make_node(operator, ["x", "lora.s.down"], ["low"], **options),
        helper.make_node(operator, ["low", "lora.s.up"], ["product"], **plain),
        helper.make_node("Add", ["base", "product"], ["y"]),
    ]
    shapes = {"x": shape, "lora.s.down": (RANK, IN, *kernel), "lora.s.up": (OUT, RANK, *(1 for _ in kernel))}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in shapes.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (shape[0], OUT, *shape[2:]))]
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.ones(OUT, np.float32), "b")]
    return typed_model(nodes, inputs, outputs, constants), weight


def adapter(model: ModelProto) -> Feed:
    """Integers of an adapter that changes weights by about a tenth."""
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in model.graph.input}
    return {name: RNG.integers(-3000, 3001, shapes[name]).astype(np.int16) for name in LORA}


def product_of(lora: Feed, shape: tuple[int, ...]) -> np.ndarray:
    down, up = (lora[f"lora.s.{part}"].astype(np.float64) * LORA[f"lora.s.{part}"].scale for part in ("down", "up"))
    return (up.reshape(OUT, RANK) @ down.reshape(RANK, -1)).reshape(shape)


@pytest.mark.parametrize("kind", SCALES)
def test_merged_integers_are_those_of_a_sum_that_is_rounded_once(tmp_path: Path, kind: str) -> None:
    """The base's 16 bits put one integer in a thousand on the other side; its INT8 weights alone put one in four there."""
    model, weight = site(kind)
    both, lora = make_mergeable(model, {}, LORA, tmp_path), adapter(model)
    for merge, least, most in ((both.merge, 0.995, 1.0), (without_residual(both.merge), 0.6, 0.85)):
        merged = {i.name: value(i) for i in merge_adapter(both.unet, merge, lora).graph.initializer}
        found, scales = merged["w.axis0.int8"], merged["w.axis0.scales"].reshape(-1, *[1] * (weight.ndim - 1))
        once = np.rint((weight + product_of(lora, weight.shape)) / scales)
        assert np.abs(found - once).max() <= 1
        assert least < (found == once).mean() <= most


def test_the_file_of_the_weights_holds_what_the_merge_reads_and_the_unet_names_its_own_alone(tmp_path: Path) -> None:
    model, weight = site("matrix")
    both = make_mergeable(model, {}, LORA, tmp_path)
    assert not any(constant.name.endswith(RESIDUAL) for constant in both.unet.graph.initializer)
    (residual,) = (constant for constant in both.merge.graph.initializer if constant.name.endswith(RESIDUAL))
    assert residual.data_location == TensorProto.EXTERNAL
    base = {constant.name: value(constant) for constant in both.unet.graph.initializer}
    scales = base["w.axis0.scales"][:, None]
    exact = (base["w.axis0.int8"] + value(residual) / 254) * scales
    assert np.abs(exact - weight).max() <= (scales / 254 / 2).max() * 1.01
    x = RNG.normal(size=(2, IN)).astype(np.float32)
    (y,) = open_session(both.unet).run(None, {"x": x})
    assert np.allclose(y, x @ weight.T + 1, atol=0.5)


def without_residual(merge: ModelProto) -> ModelProto:
    plain = ModelProto()
    plain.CopyFrom(merge)
    for constant in plain.graph.initializer:
        if constant.name.endswith(RESIDUAL):
            constant.CopyFrom(numpy_helper.from_array(np.zeros(constant.dims, np.int8), constant.name))
    return plain
