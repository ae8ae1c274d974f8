"""A bundle's way through AI Hub to a device: compiled by a service on loopback, with ONNX Runtime's optimizer, then pushed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch")  # the tiny bundle is built here
pytest.importorskip("qai_hub")

from safetensors.numpy import load_file
from support.ai_hub_service import DEVICE, AiHubService, ai_hub_service
from support.htp_emulator import compiled_by_qnn, run_on_emulator
from support.made_bundle import write_made_bundle
from test_pipeline import Watcher

from quadbench import pipeline
from quadbench.artifacts import Bundle, Component, Status, Variant
from quadbench.cli import main
from quadbench.devices import connect
from quadbench.recipe import load_recipe
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
def made(tmp_path: Path) -> tuple[Bundle, Path]:
    """The quickstart's bundle, of graphs of one layer."""
    bundle = write_made_bundle(load_recipe("quickstart"), tmp_path / "results" / "bundles")
    return bundle, tmp_path / "results" / "bundles" / bundle.digest[:16]


def test_the_harness_is_given_the_same_adapters_as_without_ai_hub(
    service: AiHubService, made: tuple[Bundle, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, folder = made
    monkeypatch.setenv("QUADBENCH_HARNESS", "/bin/true")  # pushed, not run
    arrived: dict[str, dict[str, bytes]] = {}
    for address in ("virtual:s25", "virtual:hubbed"):
        with connect([address], results=tmp_path / "results") as devices:
            deployment = roll_out(bundle, folder, devices, results=tmp_path / "results", observer=Watcher()).deployments[address]
            for adapter in bundle.adapters:
                devices[0].pull(deployment.objects[adapter.file.sha256], tmp_path / "pulled")
                arrived.setdefault(address, {})[adapter.file.path] = (tmp_path / "pulled").read_bytes()
    assert arrived["virtual:hubbed"] == arrived["virtual:s25"]
    assert arrived["virtual:hubbed"] == {a.file.path: (folder / a.file.path).read_bytes() for a in bundle.adapters}
    assert service.uploads[0] == "trial.onnx"
    assert len(service.uploads) == 1 + len([graph for graph in bundle.graphs if graph.variant.is_quantized])


def test_compile_prints_the_doubt_about_a_product_that_no_npu_runs(
    service: AiHubService, made: tuple[Bundle, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compile", str(made[1]), "--target", "hub:s25", "--results", str(tmp_path / "results")]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["caveats"] == ["CPU_FALLBACK"]
    assert main(command) == 0
    assert "CPU_FALLBACK: Some nodes ran on the CPU" in capsys.readouterr().out


@pytest.mark.slow
def test_what_the_loopback_service_compiles_runs_on_the_virtual_device(
    service: AiHubService, tiny_recipe: Path, tiny_bundle: tuple[Bundle, Path], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(tiny_bundle[1].parent, results / "bundles")
    outcome = pipeline.run(load_recipe(tiny_recipe), ["virtual:hubbed"], results=results, observer=Watcher())
    assert {record.variant: record.reason for record in outcome.result.records if record.status is not Status.OK} == {}
    shared = next(record for record in outcome.result.records if record.variant is Variant.SHARED)
    psnr_db = [s.value for s in shared.samples if s.metric == "psnr_db" and s.labels["against"] == "reference"]
    assert sum(psnr_db) / len(psnr_db) > 30


@pytest.mark.slow
def test_graphs_that_qnn_compiles_for_the_service_compute_on_the_emulator_what_they_do_on_the_cpu(
    tiny_bundle: tuple[Bundle, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime_qnn")
    bundle, folder = tiny_bundle
    with ai_hub_service(tmp_path, compiled_by_qnn) as (_, config):
        monkeypatch.setenv("QAIHUB_CLIENT_INI", str(config))
        assert main(["compile", str(folder), "--target", "hub:s25", "--results", str(tmp_path / "results"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["caveats"] == []  # nothing is left to the CPU
    (unet,) = (g for g in bundle.graphs if (g.variant, g.component) == (Variant.SHARED, Component.UNET))
    adapter = next(a for a in bundle.adapters if a.variant is Variant.SHARED)
    rng = np.random.default_rng(0)
    feed = {s.name: rng.standard_normal(s.shape).astype(np.float32) for s in unet.inputs if s.dtype == "float32"}
    feed |= load_file(folder / adapter.file.path)
    expected = onnxruntime.InferenceSession(folder / unet.file.path).run(None, feed)[0]
    found = run_on_emulator(Path(made["folder"]) / unet.file.path, feed)
    sqnr_db = 10 * np.log10(np.sum(expected**2) / np.sum((found - expected) ** 2))
    assert sqnr_db > 40
