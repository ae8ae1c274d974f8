"""The tiny model in LiteRT: its components are written, and one loaded U-Net takes every adapter."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("ai_edge_litert")

import onnx
from support.tflite_run import Feed, dialect_of, run_exactly, run_tflite, sqnr_db, tflite_runner

from quadbench.artifacts import LORA_PREFIX, Component, Graph, StoredBundle, Variant
from quadbench.compile.tflite import write_tflite
from quadbench.lint import lint_bundle
from quadbench.quad.runner import mixed_inputs
from quadbench.target.targets import LiteRtTarget

LEAST_DB = 50


def shared(bundle: StoredBundle, component: Component) -> Graph:
    return next(g for g in bundle.artifact.graphs if (g.variant, g.component) == (Variant.SHARED, component))


def data(graph: Graph) -> Feed:
    rng = np.random.default_rng(0)
    specs = [spec for spec in graph.inputs if not spec.name.startswith(LORA_PREFIX)]
    draws = {"int32": lambda shape: rng.integers(1, 9, shape), "float32": rng.standard_normal}
    return {spec.name: draws[spec.dtype](spec.shape).astype(spec.dtype) for spec in specs}


@pytest.mark.parametrize("component", [part for part in Component if part is not Component.UNET])
def test_a_component_computes_what_its_dialect_says(component: Component, tiny_bundle: StoredBundle, tmp_path: Path) -> None:
    graph = shared(tiny_bundle, component)
    write_tflite(tiny_bundle.path(graph.file), tmp_path / "model.tflite")
    expected = run_exactly(dialect_of(onnx.load(tiny_bundle.path(graph.file))), data(graph))
    assert sqnr_db(expected, run_tflite(tmp_path / "model.tflite", data(graph))) > LEAST_DB


def test_one_loaded_unet_takes_every_adapter_and_none(tiny_bundle: StoredBundle, tmp_path: Path) -> None:
    graph = shared(tiny_bundle, Component.UNET)
    write_tflite(tiny_bundle.path(graph.file), tmp_path / "unet.tflite")
    specs = [spec for spec in graph.inputs if spec.name.startswith(LORA_PREFIX)]
    files = [adapter for adapter in tiny_bundle.artifact.adapters if adapter.variant is Variant.SHARED]
    loras = [mixed_inputs([(tiny_bundle.path(adapter.file), 1.0)], specs) for adapter in files]
    loras.append({spec.name: np.zeros(spec.shape, spec.dtype) for spec in specs})
    assert any(np.prod(spec.shape[2:]) > 1 for spec in specs)  # convolutions have LoRAs too
    run, dialect = tflite_runner(tmp_path / "unet.tflite"), dialect_of(onnx.load(tiny_bundle.path(graph.file)))
    results = [run(data(graph) | lora) for lora in loras]
    for lora, result in zip(loras, results, strict=True):
        assert sqnr_db(run_exactly(dialect, data(graph) | lora), result) > LEAST_DB
    assert len({result.tobytes() for result in results}) == len(loras)


def test_the_tiny_model_s_graphs_are_clean_for_litert(tiny_bundle: StoredBundle) -> None:
    findings = lint_bundle(tiny_bundle, htp_arch=None, target=LiteRtTarget(backend="litert", soc="SM8750"))
    assert not any(findings.values())
