"""AI Hub's path: a bundle is compiled by a service on loopback, with ONNX Runtime's optimizer, and pushed to a device."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch")  # the tiny bundle is built here
pytest.importorskip("qai_hub")

from support.ai_hub_service import DEVICE, AiHubService, ai_hub_service
from support.bundles import write_recipe_bundle
from support.htp_emulator import compiled_by_qnn, run_on_emulator
from support.sentences import says
from test_pipeline import Watcher

from quadbench import pipeline
from quadbench.artifacts import LORA_PREFIX, Component, Status, StoredBundle, Variant
from quadbench.cli import main
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.quad.runner import mixed_inputs
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.rollout import roll_out

PROFILE = Path(__file__).parents[1] / "device_profiles/s25.yaml"
CPU = "virtual_target: {backend: onnxruntime, execution_provider: cpu}"
HUB = f'virtual_target: {{backend: ai_hub, device: "{DEVICE}", runtime: precompiled_qnn_onnx}}'


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AiHubService]:
    """The service, and a virtual device `hubbed` that runs what it compiles."""
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "hubbed.yaml").write_text(PROFILE.read_text().replace(CPU, HUB).replace("name: s25", "name: hubbed"))
    monkeypatch.setenv("QUADBENCH_DEVICE_PROFILES", str(profiles))
    with ai_hub_service(tmp_path) as (running, config):
        monkeypatch.setenv("QAIHUB_CLIENT_INI", str(config))
        yield running


@pytest.fixture
def bundle(layout: Layout) -> StoredBundle:
    """The quickstart's bundle, of graphs of one layer."""
    return write_recipe_bundle(load_recipe("quickstart"), layout)


def test_the_harness_is_given_the_same_adapters_as_without_ai_hub(
    service: AiHubService, bundle: StoredBundle, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters, graphs = bundle.artifact.adapters, bundle.artifact.graphs
    monkeypatch.setenv("QUADBENCH_HARNESS", "/bin/true")  # pushed, not run
    arrived: dict[str, dict[str, bytes]] = {}
    for address in ("virtual:s25", "virtual:hubbed"):
        with connect(parse_addresses([address]), layout=layout) as devices:
            (deployment,) = roll_out([bundle] * len(devices), devices, layout=layout, observer=Watcher()).deployments
            for adapter in adapters:
                devices[0].pull(deployment.objects[adapter.file.sha256], tmp_path / "pulled")
                arrived.setdefault(address, {})[adapter.file.path] = (tmp_path / "pulled").read_bytes()
    assert arrived["virtual:hubbed"] == arrived["virtual:s25"]
    assert arrived["virtual:hubbed"] == {a.file.path: bundle.path(a.file).read_bytes() for a in adapters}
    assert service.uploads[0] == "trial.onnx"
    assert len(service.uploads) == 1 + len([graph for graph in graphs if graph.variant.is_quantized])


def test_a_dry_run_of_compile_prints_each_request_and_sends_none(
    service: AiHubService, bundle: StoredBundle, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compile", str(bundle.folder), "--target", "hub:s25", "--dry-run", "--results", str(layout.root)]
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    kinds = [request["kind"] for request in answer["requests"]]
    count = 1 + len([graph for graph in bundle.artifact.graphs if graph.variant.is_quantized])
    assert answer["device"] == DEVICE
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(("upload", "compile", "download"), count)
    assert main(words) == 0
    assert "quadbench trial.onnx" in capsys.readouterr().out
    assert (service.uploads, service.submissions) == ([], [])


def test_compile_prints_the_doubt_about_a_product_that_no_npu_runs(
    service: AiHubService, bundle: StoredBundle, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compile", str(bundle.folder), "--target", "hub:s25", "--results", str(layout.root)]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["caveats"] == ["CPU_FALLBACK"]
    assert main(command) == 0
    says(capsys.readouterr().out)


@pytest.mark.slow
def test_what_the_loopback_service_compiles_runs_on_the_virtual_device(
    service: AiHubService, tiny_recipe: Path, tiny_bundle: StoredBundle, layout: Layout
) -> None:
    shutil.copytree(tiny_bundle.folder.parent, layout.bundles)
    outcome = pipeline.run(load_recipe(tiny_recipe), parse_addresses(["virtual:hubbed"]), layout=layout, observer=Watcher())
    assert {record.variant: record.reason for record in outcome.result.records if record.status is not Status.OK} == {}
    shared = next(record for record in outcome.result.records if record.variant is Variant.SHARED)
    psnr_db = [s.value for s in shared.samples if s.metric == "psnr_db" and s.labels["against"] == "reference"]
    assert sum(psnr_db) / len(psnr_db) > 30


@pytest.mark.slow
def test_graphs_that_qnn_compiles_for_the_service_compute_on_the_emulator_what_they_do_on_the_cpu(
    tiny_bundle: StoredBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime_qnn")
    bundle, folder = tiny_bundle.artifact, tiny_bundle.folder
    with ai_hub_service(tmp_path, compiled_by_qnn) as (_, config):
        monkeypatch.setenv("QAIHUB_CLIENT_INI", str(config))
        assert main(["compile", str(folder), "--target", "hub:s25", "--results", str(tmp_path / "results"), "--json"]) == 0
    product = json.loads(capsys.readouterr().out)
    assert product["caveats"] == []  # nothing is left to the CPU
    (unet,) = (g for g in bundle.graphs if (g.variant, g.component) == (Variant.SHARED, Component.UNET))
    adapter = next(a for a in bundle.adapters if a.variant is Variant.SHARED)
    rng = np.random.default_rng(0)
    feed = {s.name: rng.standard_normal(s.shape).astype(np.float32) for s in unet.inputs if s.dtype == "float32"}
    feed |= mixed_inputs([(folder / adapter.file.path, 1.0)], [s for s in unet.inputs if s.name.startswith(LORA_PREFIX)])
    expected = onnxruntime.InferenceSession(folder / unet.file.path).run(None, feed)[0]
    output = run_on_emulator(Path(product["folder"]) / unet.file.path, feed)
    sqnr_db = 10 * np.log10(np.sum(expected**2) / np.sum((output - expected) ** 2))
    assert sqnr_db > 40
