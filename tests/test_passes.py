"""Passes: each leaves what a graph computes as it was, on graphs of a few nodes and on a whole model's."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("torch")

import torch
from onnx import helper, numpy_helper
from support.small_graphs import RNG, attention_model, model_of, run, seeded_feed

from quadbench.artifacts import Component
from quadbench.quad.model import float_graphs
from quadbench.quad.model.foundation import load_foundation
from quadbench.quad.quantize import passes


@pytest.mark.parametrize("shape", [(1, 6, 4, 4), (1, 258, 4, 4), (1, 258, 16)])
def test_group_norm_is_written_as_what_npus_take_with_the_same_result(shape: tuple[int, ...]) -> None:
    node = helper.make_node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=2, epsilon=1e-5)
    weights = {name: RNG.standard_normal(shape[1]).astype(np.float32) for name in ("scale", "bias")}
    model = model_of([node], {"x": shape}, weights, shape)
    feed = seeded_feed(model)
    expected = run(model, feed)
    passes.decompose_group_norm(model)
    assert {node.op_type for node in model.graph.node} == {"Reshape", "InstanceNormalization", "Conv"}
    np.testing.assert_allclose(run(model, feed), expected, atol=1e-5)


def test_attention_masks_keep_their_meaning_within_sixteen_bits() -> None:
    mask = np.where(np.tri(4, dtype=bool), 0, np.finfo(np.float32).min).astype(np.float32)
    nodes = [helper.make_node("Add", ["x", "mask"], ["scores"]), helper.make_node("Softmax", ["scores"], ["y"], axis=-1)]
    model = model_of(nodes, {"x": (4, 4)}, {"mask": mask}, (4, 4))
    feed = seeded_feed(model)
    expected = run(model, feed)
    passes.clamp_mask_constants(model)
    np.testing.assert_allclose(run(model, feed), expected, atol=1e-6)
    assert numpy_helper.to_array(model.graph.initializer[0]).min() == passes.MASKED_SCORE


def test_linear_layers_become_gemm_with_the_same_result() -> None:
    model = attention_model()
    feed = seeded_feed(model)
    expected = run(model, feed)
    passes.linear_as_gemm(model)
    assert Counter(node.op_type for node in model.graph.node) == {"Gemm": 3, "Reshape": 5, "Add": 1, "Transpose": 1, "MatMul": 1}
    np.testing.assert_allclose(run(model, feed), expected, atol=1e-5)


def test_lora_weights_go_into_gemm_as_they_are() -> None:
    model = attention_model()
    passes.linear_as_gemm(model)
    for name in ("lora.s.down", "lora.s.up"):
        assert [node.op_type for node in model.graph.node if name in node.input] == ["Gemm"]


def test_layer_norm_is_split_with_the_same_result() -> None:
    node = helper.make_node("LayerNormalization", ["x", "scale", "offset"], ["y"], "norm", axis=-1, epsilon=1e-5)
    weights = {name: RNG.standard_normal(8).astype(np.float32) for name in ("scale", "offset")}
    model = model_of([node], {"x": (1, 4, 8)}, weights, (1, 4, 8))
    feed = seeded_feed(model)
    expected = run(model, feed)
    passes.split_layer_norm(model)
    assert [node.op_type for node in model.graph.node] == ["LayerNormalization", "Mul", "Add"]
    np.testing.assert_allclose(run(model, feed), expected, atol=1e-5)


@pytest.mark.parametrize("component", Component)
@pytest.mark.slow
def test_a_whole_graph_computes_what_it_did_before_its_passes(
    component: Component, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foundation = load_foundation(tiny_recipe.parent / "model")
    rewrites = passes.passes_of(component)
    monkeypatch.setattr(float_graphs, "passes_of", lambda _: ())
    with torch.no_grad():
        if component is Component.UNET:
            ranks = {site: 4 for site, _ in foundation.unet.named_modules() if site.endswith(("to_q", "to_out.0", "conv1"))}
            model = float_graphs.export_unet(foundation, foundation.unet, ranks, tmp_path)
        else:
            model = float_graphs.export_component(foundation, component, tmp_path)
    feed = {"input_ids": np.arange(5, 21, dtype=np.int32)[None]} if component is Component.TEXT_ENCODER else seeded_feed(model)
    feed |= {name: tensor / 10 for name, tensor in feed.items() if name.startswith("lora.")}  # as small as adapters are
    expected = run(model, feed)
    for rewrite in rewrites:
        rewrite(model)
        np.testing.assert_allclose(run(model, feed), expected, atol=1e-5, rtol=1e-5)
