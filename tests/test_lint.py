"""Lint: the tiny model's graphs are clean; each rule finds the graph that breaks it and nothing else."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import ModelProto, TensorProto, helper, numpy_helper
from support.bundles import write_bundle
from support.lora_graph import LORA, model_of
from support.sentences import raising, reads, says

from quadbench.artifacts import StoredBundle
from quadbench.artifacts.run_record import file_refs
from quadbench.cli import main
from quadbench.compile import compile_bundle
from quadbench.errors import ArtifactError, BuildError
from quadbench.lint import Finding, Severity, lint_bundle, lint_graph
from quadbench.lint.linted_graph import graph_of
from quadbench.results.layout import Layout
from quadbench.target.profile import load_profile
from quadbench.target.targets import LiteRtTarget, OnnxRuntimeTarget, Target

CPU = OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu")
V69_PROFILE = """\
schema_version: 1
name: old-phone
title: A phone with an HTP of v69
match: {ro.soc.model: SM8450}
soc: {vendor: qualcomm, model: SM8450, title: Snapdragon 8 Gen 1, ram_mb: 8192, htp_arch: v69}
target: {backend: onnxruntime, execution_provider: cpu}
virtual_target: {backend: onnxruntime, execution_provider: cpu}
notes: [never run on the hardware]
"""


def grouped() -> ModelProto:
    ones = np.ones(4, np.float32)
    node = helper.make_node("GroupNormalization", ["y.float", "extra0", "extra1"], ["y"], "normalise", num_groups=2)
    return model_of(after=(node,), extra=(ones, ones))


def resized(**form: str) -> ModelProto:
    nodes = (
        helper.make_node("QuantizeLinear", ["y.float", "x_scale", "extra0"], ["y.q"], "y.quantize"),
        helper.make_node("DequantizeLinear", ["y.q", "x_scale", "extra0"], ["y.dq"], "y.dequantize"),
        helper.make_node("Resize", ["y.dq", "", "extra1"], ["y"], "enlarge", mode="nearest", **form),
    )
    return model_of(after=nodes, extra=(np.array(7, np.uint16), np.ones(2, np.float32)))


def narrowed() -> ModelProto:
    nodes = (
        helper.make_node("QuantizeLinear", ["y.float", "x_scale", "extra0"], ["y.q"], "y.quantize"),
        helper.make_node("DequantizeLinear", ["y.q", "x_scale", "extra0"], ["y"], "y.dequantize"),
    )
    return model_of(after=nodes, extra=(np.array(7, np.uint8),))


def looked_up() -> ModelProto:
    return model_of(after=(helper.make_node("Gather", ["y.float", "extra0"], ["y"], "look up"),), extra=(np.arange(4),))


def depthwise(channels: int, weights: int = 1) -> ModelProto:
    nodes = (
        helper.make_node("QuantizeLinear", ["y.float", "x_scale", "x_zero"], ["y.q"], "y.quantize"),
        helper.make_node("DequantizeLinear", ["y.q", "x_scale", "x_zero"], ["y.dq"], "y.dequantize"),
        helper.make_node("DequantizeLinear", ["extra0", "extra1", "extra2"], ["filters"], "filters.dequantize", axis=0),
        helper.make_node("Conv", ["y.dq", "filters"], ["y"], "scale", group=channels),
    )
    filters, scales = np.ones((channels, 1, 1, weights), np.int8), np.ones(channels, np.float32)
    return model_of(after=nodes, extra=(filters, scales, np.zeros(channels, np.int8)))


def moved() -> ModelProto:
    return model_of(before=(helper.make_node("Transpose", [LORA], ["turned"], "turn", perm=[1, 0]),), dequantized="turned")


def findings_of(model: ModelProto, htp_arch: str | None, target: Target | None = None) -> list[Finding]:
    return list(lint_graph(graph_of(model), htp_arch=htp_arch, target=target))


BROKEN: dict[str, tuple[Callable[[], ModelProto], str, str, str | None]] = {
    # rule: (graph, subject, words of what was found, oldest architecture that it also applies to; None for all chips)
    "dynamic-shape": (lambda: model_of(rows="batch"), "tensor 'x'", (4,), None),
    "lora-overridable": (lambda: model_of(default=True), f"tensor '{LORA}'", (), None),
    "lora-zero-point": (lambda: model_of(zero_point=3), f"tensor '{LORA}'", (3,), None),
    "lora-per-channel": (lambda: model_of(scale=np.full(4, 0.01, np.float32)), f"tensor '{LORA}'", (4,), None),
    "encoding-not-constant": (lambda: model_of(computed_scale=True), "node 'lora.dequantize'", ("scale",), None),
    "opset": (lambda: model_of(opset=20), "node 'x.quantize'", ("UINT16", 20), None),
    "lora-uint16": (lambda: model_of(dtype="uint16"), f"tensor '{LORA}'", (8,), "v79"),
    "lora-not-dequantized": (moved, f"tensor '{LORA}'", ("Transpose", "turn"), "v79"),
    "lora-int16": (model_of, f"tensor '{LORA}'", ("INT16",), "v69"),
    "group-norm": (grouped, "node 'normalise'", ("GroupNormalization",), "v79"),
    "resize-form": (
        lambda: resized(coordinate_transformation_mode="half_pixel", nearest_mode="floor"),
        "node 'enlarge'",
        (),
        "v79",
    ),
    "wide-depthwise": (lambda: depthwise(257), "node 'scale'", (257, "INT8"), "v79"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_rule_finds_the_graph_that_breaks_it_and_no_other_rule_does(rule: str) -> None:
    make, subject, words, htp_arch = BROKEN[rule]
    finding = next(iter(findings_of(make(), htp_arch)))
    assert [f.rule for f in findings_of(make(), htp_arch)] == [rule]
    assert finding.subject == subject
    says(finding.found, *words)
    assert finding.expected
    assert finding.hint


@pytest.mark.parametrize("rule", [rule for rule, (*_, htp_arch) in BROKEN.items() if htp_arch])
def test_a_rule_of_the_htp_leaves_other_chips_alone(rule: str) -> None:
    assert findings_of(BROKEN[rule][0](), None) == []


@pytest.mark.parametrize("rule", [rule for rule, (*_, htp_arch) in BROKEN.items() if htp_arch is None])
def test_a_rule_of_all_chips_holds_on_the_htp_too(rule: str) -> None:
    assert [finding.rule for finding in findings_of(BROKEN[rule][0](), "v79")] == [rule]


@pytest.mark.parametrize("htp_arch", ["v73", "v79", "v81", None])
def test_int16_lora_is_taken_from_v73_on(htp_arch: str | None) -> None:
    assert findings_of(model_of(), htp_arch) == []


def test_int8_lora_is_taken_before_v73() -> None:
    assert findings_of(model_of(dtype="int8"), "v69") == []


def test_what_is_known_to_be_wrong_is_an_error() -> None:
    assert all(findings_of(make(), htp_arch)[0].severity is Severity.ERROR for make, _, _, htp_arch in BROKEN.values())


@pytest.mark.parametrize(("channels", "weights"), [(256, 1), (257, 2)])
def test_depthwise_filters_that_the_compiler_takes_are_taken(channels: int, weights: int) -> None:
    assert findings_of(depthwise(channels, weights), "v79") == []


def test_a_form_of_resize_that_was_not_tried_is_a_warning() -> None:
    assert [(f.rule, f.severity) for f in findings_of(resized(), "v79")] == [("resize-form", Severity.WARNING)]


def test_the_exported_form_of_resize_is_taken() -> None:
    assert findings_of(resized(coordinate_transformation_mode="asymmetric", nearest_mode="floor"), "v79") == []


def test_a_zero_point_is_found_behind_nodes_that_move_values() -> None:
    turn = helper.make_node("Transpose", [LORA], ["turned"], "turn", perm=[1, 0])
    model = model_of(before=(turn,), dequantized="turned", zero_point=3)
    assert [finding.rule for finding in findings_of(model, None)] == ["lora-zero-point"]


def test_a_lora_input_that_nothing_reads_is_found() -> None:
    model = model_of(dequantized="extra0", extra=(np.zeros((4, 4), np.int16),))
    reads([(f.rule, f.found) for f in findings_of(model, "v79")], "lora-not-dequantized")


def test_an_overridable_scale_is_not_constant() -> None:
    model = model_of()
    model.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, []))
    assert [finding.rule for finding in findings_of(model, None)] == ["encoding-not-constant"]


def test_a_scale_from_a_constant_node_is_constant() -> None:
    model = model_of(computed_scale=True)
    value = numpy_helper.from_array(np.asarray(np.float32(0.01)))
    model.graph.node[0].CopyFrom(helper.make_node("Constant", [], ["scale"], "constant", value=value))
    assert findings_of(model, "v79") == []


def test_an_output_of_unknown_rank_is_dynamic() -> None:
    model = model_of()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert [finding.subject for finding in findings_of(model, None)] == ["tensor 'y'"]


# Bundles: one graph in a real folder with a manifest is all that is needed here.


@pytest.fixture
def bundle_of(tmp_path: Path) -> Callable[[ModelProto], StoredBundle]:
    """Publish a bundle whose only quantized graph is the model."""
    return lambda model: write_bundle(tmp_path / "bundles" / "small", model)


def test_a_v69_profile_with_int16_lora_is_refused_with_the_way_out(
    bundle_of: Callable[[ModelProto], StoredBundle], tmp_path: Path
) -> None:
    (tmp_path / "old-phone.yaml").write_text(V69_PROFILE)
    profile = load_profile(tmp_path / "old-phone.yaml")
    with pytest.raises(BuildError) as refused:
        compile_bundle(bundle_of(model_of()), profile.target, "key", Layout(tmp_path), htp_arch=profile.soc.htp_arch)
    message = str(refused.value)
    says(message, "v69", "shared/unet.onnx", "lora-int16", LORA, "INT16", "INT8", "precision.lora", "int8")
    assert not (tmp_path / "compiled").exists()


def test_what_was_compiled_for_another_chip_is_linted_again(
    bundle_of: Callable[[ModelProto], StoredBundle], tmp_path: Path
) -> None:
    bundle = bundle_of(model_of())
    assert not compile_bundle(bundle, CPU, "key", Layout(tmp_path)).is_reused
    with pytest.raises(BuildError, match="lora-int16"):
        compile_bundle(bundle, CPU, "key", Layout(tmp_path), htp_arch="v69")


def test_a_warning_is_logged_and_compiles(
    bundle_of: Callable[[ModelProto], StoredBundle], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        compile_bundle(bundle_of(resized()), CPU, "key", Layout(tmp_path), htp_arch="v79")
    assert [r.message.partition(": found")[0] for r in caplog.records] == ["lint: shared/unet.onnx: resize-form: node 'enlarge'"]


def test_without_onnx_graphs_are_compiled_and_the_log_says_that_nothing_was_linted(
    bundle_of: Callable[[ModelProto], StoredBundle],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = bundle_of(model_of())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with caplog.at_level(logging.WARNING):
        compiled = compile_bundle(bundle, CPU, "key", Layout(tmp_path), htp_arch="v69")
    assert compiled.artifact.graphs
    says(caplog.text)


def test_a_file_that_is_no_model_is_refused(bundle_of: Callable[[ModelProto], StoredBundle]) -> None:
    bundle = bundle_of(model_of())
    (bundle.folder / "shared/unet.onnx").write_bytes(b"\xff\xff\xff no model")
    with raising(ArtifactError, "shared/unet.onnx"):
        lint_bundle(bundle, htp_arch=None)


def without_scale(model: ModelProto) -> None:
    del next(node for node in model.graph.node if node.op_type == "DequantizeLinear").input[1:]


def without_output(model: ModelProto) -> None:
    del model.graph.node[0].output[:]


def of_unknown_type(model: ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


@pytest.mark.parametrize(
    ("bend", "reason"),
    [
        (without_scale, ("DequantizeLinear", 1)),
        (without_output, (3, 0)),
        (of_unknown_type, (99,)),
    ],
)
def test_a_model_with_a_node_or_tensor_that_cannot_be_is_refused(
    bundle_of: Callable[[ModelProto], StoredBundle], bend: Callable[[ModelProto], None], reason: tuple[object, ...]
) -> None:
    bend(model := model_of())
    with raising(ArtifactError, "shared/unet.onnx", *reason):
        lint_bundle(bundle_of(model), htp_arch=None)


def test_text_that_is_not_utf_8_is_read() -> None:
    model = model_of()
    model.graph.node[0].attribute.append(helper.make_attribute("mode", b"\xff"))
    assert graph_of(model).nodes[0].attributes["mode"] == "\ufffd"


def test_the_command_says_what_is_wrong_and_fails(
    bundle_of: Callable[[ModelProto], StoredBundle], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bundle_of(model_of(dtype="uint16")).folder
    assert main(["lint", str(folder)]) == 0
    assert main(["lint", str(folder), "--profile", "s25"]) == BuildError.exit_code
    assert "error: shared/unet.onnx: lora-uint16" in capsys.readouterr().out
    assert main(["lint", str(folder), "--profile", "s25", "--json"]) == BuildError.exit_code
    listed = json.loads(capsys.readouterr().out)["shared/unet.onnx"]
    assert [(finding["rule"], finding["severity"]) for finding in listed] == [("lora-uint16", "error")]


BROKEN_FOR_LITERT: dict[str, tuple[Callable[[], ModelProto], str, str]] = {
    "litert-operator": (lambda: model_of(after=(helper.make_node("Tanh", ["y.float"], ["y"], "bend"),)), "node 'bend'", "Tanh"),
    "litert-8-bit": (narrowed, "node 'y.quantize'", "UINT8"),
    "litert-resize": (lambda: resized(nearest_mode="ceil"), "node 'enlarge'", "nearest with half_pixel with ceil"),
    "litert-gather": (looked_up, "node 'look up'", "a look-up, which MediaTek's plugin leaves to the CPU"),
}


@pytest.mark.parametrize("rule", BROKEN_FOR_LITERT)
def test_a_rule_of_litert_finds_the_graph_that_breaks_it_where_litert_is_the_target(rule: str) -> None:
    make, subject, words = BROKEN_FOR_LITERT[rule]
    (finding,) = findings_of(make(), None, LiteRtTarget(backend="litert", soc="MT6991"))
    assert (finding.rule, finding.subject, finding.found) == (rule, subject, words)
    assert findings_of(make(), None) == []


def test_only_mediatek_s_plugin_leaves_look_ups_to_the_cpu() -> None:
    assert findings_of(looked_up(), None, LiteRtTarget(backend="litert", soc="SM8750")) == []


def test_the_command_takes_a_target_for_the_rules_of_its_compiler(
    bundle_of: Callable[[ModelProto], StoredBundle], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bundle_of(narrowed()).folder
    assert main(["lint", str(folder), "--target", "litert-mt6991"]) == BuildError.exit_code
    assert "error: shared/unet.onnx: litert-8-bit" in capsys.readouterr().out


def test_the_tiny_model_s_graphs_are_clean(tiny_bundle: StoredBundle) -> None:
    findings = lint_bundle(tiny_bundle, htp_arch="v79")
    assert {path.split("/")[0] for path in findings} == {"shared", "per-graph"}
    assert not any(findings.values())
    assert not any(lint_bundle(tiny_bundle, htp_arch=None).values())


def test_the_tiny_model_s_adapters_are_too_wide_for_v69(tiny_bundle: StoredBundle) -> None:
    findings = lint_bundle(tiny_bundle, htp_arch="v69")
    lora = [spec.name for graph in tiny_bundle.artifact.graphs for spec in graph.inputs if spec.dtype == "int16"]
    assert [f.subject for f in findings["shared/unet.onnx"] if f.rule == "lora-int16"] == [f"tensor '{name}'" for name in lora]


def test_a_graph_that_was_changed_is_not_linted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "bundle", model_of())
    path = bundle.folder / "shared/unet.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert main(["lint", str(bundle.folder)]) == 3
    says(capsys.readouterr().err, "unet.onnx")


@pytest.mark.parametrize("command", [["lint"], ["compile", "--target", "virtual:s25"]])
def test_a_bundle_of_which_another_file_was_changed_is_neither_linted_nor_compiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    bundle = write_bundle(tmp_path / "bundle", model_of())
    others = [file for file in file_refs(bundle.artifact) if not file.path.startswith("shared/")]
    path = bundle.path(others[-1])
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert main([*command, str(bundle.folder), "--results", str(tmp_path / "results")]) == 3
    says(capsys.readouterr().err, others[-1].path)


def test_a_chip_that_no_profile_names_is_answered_with_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bundle(tmp_path / "bundle", model_of()).folder
    assert main(["lint", str(folder), "--target", "litert-mt9999"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    says(said, "litert-mt9999")
    assert {"litert-e9955,", "litert-mt6991,", "litert-sm8750,"} <= set(said.split())
    says(said, "litert-mt6991")
