"""Fake quantization in torch against ONNX Runtime on the very graph that is shipped."""

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402
from support.sentences import raising  # noqa: E402

from quadbench.artifacts import LORA_PREFIX, Component, StoredBundle, Variant  # noqa: E402
from quadbench.errors import BuildError  # noqa: E402
from quadbench.quad.quantize.fake_quant import FakeQuantGraph, Tensors  # noqa: E402
from quadbench.quad.runner import mixed_inputs  # noqa: E402

Feed = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def shared(tiny_bundle: StoredBundle) -> onnx.ModelProto:
    graph = next(g for g in tiny_bundle.artifact.graphs if (g.variant, g.component) == (Variant.SHARED, Component.UNET))
    return onnx.load(tiny_bundle.path(graph.file))


def _lora(bundle: StoredBundle, variant: Variant) -> Feed:
    first = next(a for a in bundle.artifact.adapters if a.name == "first" and a.variant is variant)
    unet = next(g for g in bundle.artifact.graphs if (g.variant, g.component) == (variant, Component.UNET))
    return mixed_inputs([(bundle.path(first.file), 1.0)], [spec for spec in unet.inputs if spec.name.startswith(LORA_PREFIX)])


def _data(model: onnx.ModelProto, seed: int) -> Feed:
    rng = np.random.default_rng(seed)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input if "lora." not in v.name}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _tensors(feed: Feed) -> dict[str, "torch.Tensor"]:
    return {name: torch.from_numpy(value) for name, value in feed.items()}


def _scales(model: onnx.ModelProto) -> dict[str, float]:
    """Return the scale of every dequantized activation and LoRA input."""
    constants = {i.name: i for i in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] not in constants]
    return {node.output[0]: float(onnx.numpy_helper.to_array(constants[node.input[1]])) for node in nodes}


def _with_all_outputs(model: onnx.ModelProto, names: Iterator[str]) -> onnx.ModelProto:
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    seen.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return seen


def _replayed(graph: FakeQuantGraph, inputs: Tensors, seen: dict[str, np.ndarray]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and value of each tensor in `seen`, computed from the values in `seen`."""
    values = dict(inputs)
    for node in graph._nodes:
        outputs = graph._run(node, values)
        yield from ((name, tensor) for name, tensor in outputs.items() if name in seen)
        values |= {name: torch.from_numpy(seen[name]) if name in seen else tensor for name, tensor in outputs.items()}


def test_every_activation_is_within_one_step_where_all_before_it_is_equal(
    shared: onnx.ModelProto, tiny_bundle: StoredBundle
) -> None:
    """Each node is given ONNX Runtime's own values, so that no difference adds to another."""
    scales = _scales(shared)
    feed = _data(shared, 0) | _lora(tiny_bundle, Variant.SHARED)
    names = sorted(scales)
    seen = dict(zip(names, _session(_with_all_outputs(shared, iter(names))).run(None, feed), strict=True))
    graph = FakeQuantGraph(shared)
    given = _tensors(_data(shared, 0) | {n: v * np.float32(scales[f"{n}.dq"]) for n, v in feed.items() if n.startswith("lora.")})
    worst = {
        name: int(np.rint(np.abs(tensor.numpy() - seen[name]).max() / scales[name]))
        for name, tensor in _replayed(graph, given, seen)
    }
    assert worst.keys() == scales.keys()
    assert max(worst.values()) <= 1
    assert all(steps == 0 for name, steps in worst.items() if name.startswith("lora."))


def test_the_output_follows_onnx_runtime_through_the_whole_graph(shared: onnx.ModelProto, tiny_bundle: StoredBundle) -> None:
    """Roundings that fall to the other side add up: 60 dB here, where steps are wide by headroom; quantization leaves 43 dB."""
    graph, session = FakeQuantGraph(shared), _session(shared)
    integers, floats = (_lora(tiny_bundle, variant) for variant in (Variant.SHARED, Variant.FLOAT))
    scales = _scales(shared)
    weights = {name: torch.from_numpy(value * np.float32(scales[f"{name}.dq"])) for name, value in integers.items()}
    assert weights.keys() == floats.keys()
    for seed in range(3):
        data = _data(shared, seed)
        expected = session.run(None, data | integers)[0]
        output = graph(_tensors(data) | weights).numpy()
        assert 10 * np.log10(np.square(expected).sum() / np.square(output - expected).sum()) > 55


def test_several_samples_at_once_give_what_each_gives_alone(shared: onnx.ModelProto, tiny_bundle: StoredBundle) -> None:
    graph, lora = FakeQuantGraph(shared), _tensors(_lora(tiny_bundle, Variant.FLOAT))
    one, two = (_tensors(_data(shared, seed)) for seed in (0, 1))
    together = graph({name: torch.cat([one[name], two[name]]) for name in one} | lora)
    alone = torch.cat([graph(one | lora), graph(two | lora)])
    assert float((together - alone).abs().max()) < 1e-2 * float(alone.abs().max())


def test_gradients_reach_every_lora_input(shared: onnx.ModelProto, tiny_bundle: StoredBundle) -> None:
    weights = {n: t.requires_grad_() for n, t in _tensors(_lora(tiny_bundle, Variant.FLOAT)).items()}
    FakeQuantGraph(shared)(_tensors(_data(shared, 0)) | weights).square().mean().backward()
    own = {name for name, tensor in weights.items() if float(tensor.detach().abs().max()) > 0}
    assert own
    assert all(float(weights[name].grad.abs().max()) > 0 for name in own)


def test_an_operator_without_a_torch_function_is_named() -> None:
    node = helper.make_node("Hardmax", ["x"], ["y"], "odd")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
    with raising(BuildError, "odd", "Hardmax"):
        FakeQuantGraph(model)


def _resizing(factors: tuple[float, ...] = (1, 1, 2, 2), **form: str) -> onnx.ModelProto:
    node = helper.make_node("Resize", ["x", "", "factors"], ["y"], "enlarge", **form)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, None, None]) for name in ("x", "y")]
    scales = onnx.numpy_helper.from_array(np.array(factors, np.float32), "factors")
    graph = helper.make_graph([node], "g", values[:1], values[1:], [scales])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("factors", [(1, 1, 2, 2), (1, 1, 3, 4)])
@pytest.mark.parametrize(("coordinates", "rounding"), [("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")])
def test_resizing_is_onnx_runtime_s(coordinates: str, rounding: str, factors: tuple[float, ...]) -> None:
    model = _resizing(factors, mode="nearest", coordinate_transformation_mode=coordinates, nearest_mode=rounding)
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 6)).astype(np.float32)
    (expected,) = _session(model).run(None, {"x": x})
    assert np.array_equal(FakeQuantGraph(model)({"x": torch.from_numpy(x)}).numpy(), expected)


@pytest.mark.parametrize(
    ("model", "form"),
    [
        (_resizing(mode="linear"), ("half_pixel", "round_prefer_floor")),
        (_resizing(mode="nearest", nearest_mode="ceil"), ("half_pixel",)),
        (_resizing((1, 1, 1.5, 2)), ("1.0", "1.5", "2.0")),
    ],
    ids=["linear", "ceil", "a broken factor"],
)
def test_a_resize_of_another_form_is_refused_with_what_is_accepted(model: onnx.ModelProto, form: tuple[str, ...]) -> None:
    with raising(BuildError, "enlarge", "Resize", *form, "nearest, asymmetric, floor"):
        FakeQuantGraph(model)
