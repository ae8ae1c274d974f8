"""Adapters that are added to a U-Net's weights as it is loaded: the values, what a compiler leaves of them, and the pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file

pytest.importorskip("torch")

from support.sentences import raising
from support.tiny_model import copy_with_one_task
from support.watcher import Silent

from quadbench import pipeline
from quadbench.artifacts import Component, Graph, Status, StoredArtifact, StoredBundle, Variant
from quadbench.artifacts.pixels import max_abs_difference, read_pixels
from quadbench.compile import compile_bundle
from quadbench.devices.addresses import parse_addresses
from quadbench.errors import BuildError
from quadbench.quad.cache import digests_of
from quadbench.quad.model_files import tensor_places
from quadbench.quad.quantize.merging import make_mergeable
from quadbench.quad.quantize.quantizer import write_weight_only
from quadbench.quad.writer import BundleWriter, lora_encodings_of
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.target.targets import QnnTarget

Feed = dict[str, np.ndarray]
MOST_DIFFERENCE = 2  # of a pixel, of 255, by which one way may be farther from the float graphs' picture than the other


def adapter_feed(session: onnxruntime.InferenceSession, path: Path) -> Feed:
    """An adapter's integers, with zeros where its rank is less than the graph's."""
    tensors = load_file(path)
    feed = {value.name: np.zeros(value.shape, np.int16) for value in session.get_inputs() if value.name.startswith("lora.")}
    for name, values in tensors.items():
        feed[name][tuple(slice(0, size) for size in values.shape)] = values
    return feed


def data_feed(session: onnxruntime.InferenceSession) -> Feed:
    random = np.random.default_rng(0)
    values = [value for value in session.get_inputs() if not value.name.startswith("lora.")]
    return {value.name: random.normal(size=value.shape).astype(np.float32) for value in values}


def sqnr_db(exact: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(other - exact).sum()))


def written(tiny_bundle: StoredBundle, folder: Path) -> tuple[Graph, onnx.ModelProto]:
    """The tiny U-Net with INT8 weights, twice: one whose weights are added to, and one with LoRA inputs."""
    model, lora = onnx.load(tiny_bundle.folder / "float/unet.onnx"), lora_encodings_of(tiny_bundle)
    both = make_mergeable(model, {}, lora, folder)
    graph = BundleWriter(folder / "bundle").graph(both.unet, Variant.MERGED_AT_LOAD, Component.UNET, merge=both.merge)
    return graph, write_weight_only(model, lora=lora).model


def merged_tensors(tiny_bundle: StoredBundle, folder: Path, adapter: str) -> tuple[Feed, Feed]:
    """An adapter's LoRA inputs, and what the merge graph in the folder makes of them."""
    merge = onnxruntime.InferenceSession(folder / "merge.onnx")
    lora = adapter_feed(merge, tiny_bundle.folder / f"adapters/{adapter}.safetensors")
    names = [value.name for value in merge.get_outputs()]
    return lora, dict(zip(names, merge.run(None, lora), strict=True))


@pytest.mark.parametrize("adapter", ["first", "second"])
def test_a_merged_adapter_does_what_it_does_as_input(tiny_bundle: StoredBundle, tmp_path: Path, adapter: str) -> None:
    graph, shared = written(tiny_bundle, tmp_path)
    folder = tmp_path / "bundle/merged-at-load"
    lora, outputs = merged_tensors(tiny_bundle, folder, adapter)
    base = load_file(folder / graph.data.path.rpartition("/")[2])
    residuals = {name.replace(".int8", ".residual") for name in base if name.endswith(".int8")}
    assert base.keys() == outputs.keys() | residuals
    scales = [name for name in outputs if name.endswith(".scales")]
    assert all((outputs[name] >= base[name]).all() for name in scales)  # so that no bias leaves its range
    assert any((outputs[name] > base[name]).any() for name in scales)  # where weights outgrew the base's

    content = bytearray((folder / graph.data.sha256).read_bytes())
    for name, (begin, end) in tensor_places(folder / graph.data.sha256).items():
        if name in outputs:
            content[begin:end] = outputs[name].tobytes()
    options, held = onnxruntime.SessionOptions(), bytes(content)
    options.add_external_initializers_from_files_in_memory([graph.data.sha256], [held], [len(held)])
    own = onnxruntime.InferenceSession(folder / "unet.onnx", options)
    as_input = onnxruntime.InferenceSession(shared.SerializeToString())
    data = data_feed(own)
    (exact,), (eps,) = as_input.run(None, data | lora), own.run(None, data)
    assert sqnr_db(exact, eps) > 30
    (without,) = onnxruntime.InferenceSession(folder / "unet.onnx").run(None, data)
    assert sqnr_db(exact, without) < 25


@pytest.mark.slow
@pytest.mark.parametrize("activations", [{"scheme": "w8a16"}, {"scheme": "float"}, {"scheme": "mixed", "int8_percent": 60}])
def test_pictures_are_as_near_to_the_float_graphs_as_those_of_the_shared_graph(
    tiny_recipe: Path, tmp_path: Path, activations: dict[str, Any]
) -> None:
    recipe = load_recipe(
        copy_with_one_task(tiny_recipe, tmp_path / "tiny"),
        {"baselines": ["merged-at-load"], "precision.activations": activations},
    )
    layout = Layout(tmp_path / "results")
    result = pipeline.run(recipe, parse_addresses(["local"]), layout=layout, observer=Silent()).result
    records = {record.variant: record for record in result.records}
    assert {variant: record.status for variant, record in records.items()} == dict.fromkeys(
        (Variant.FLOAT, Variant.SHARED, Variant.MERGED_AT_LOAD), Status.OK
    )
    folders = [layout.launch(result.run_id, "local", v, 0) for v in (Variant.FLOAT, Variant.SHARED, Variant.MERGED_AT_LOAD)]
    for name in records[Variant.SHARED].images:
        exact, shared, merged = (read_pixels(folder / "images" / f"{name}.png") for folder in folders)
        assert max_abs_difference(exact, merged) <= max_abs_difference(exact, shared) + MOST_DIFFERENCE


def test_a_target_with_fixed_weights_is_refused(tiny_bundle: StoredBundle, tmp_path: Path) -> None:
    graph, _ = written(tiny_bundle, tmp_path)
    bundle = StoredArtifact(artifact=replace(tiny_bundle.artifact, graphs=(graph,)), folder=tmp_path)
    with raising(BuildError, "npu", "tiny"):
        compile_bundle(bundle, QnnTarget(backend="qnn", htp_arch="v79", soc_model=69), "npu", Layout(tmp_path))


def test_baselines_count_by_the_graphs_that_they_need(tiny_recipe: Path) -> None:
    def digest(*baselines: str) -> str:
        return digests_of(load_recipe(tiny_recipe, {"baselines": list(baselines)})).bundle

    assert digest("per-graph", "resident") == digest("per-graph")
    assert digest("merged-at-load", "per-graph") == digest("per-graph", "merged-at-load")
    assert len({digest(), digest("per-graph"), digest("merged-at-load"), digest("per-graph", "merged-at-load")}) == 4
