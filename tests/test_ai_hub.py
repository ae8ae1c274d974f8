"""AI Hub: graphs are compiled through its real client by a service on loopback, faults are told, a second run goes on."""

import json
import logging
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("qai_hub")
pytest.importorskip("onnx")

import onnx
import onnxruntime
from support.ai_hub_graphs import Sources, compile_at_hub, hurried_service, target_of, write_decoder, write_graphs
from support.ai_hub_service import QAIRT_VERSION, TOKEN, AiHubService, ai_hub_service
from support.htp_emulator import compiled_by_qnn, run_on_emulator
from support.sentences import raising, reads, says

from quadbench.ai_hub.hub_jobs import Ledger
from quadbench.artifacts import Caveat, FileRef, TensorSpec
from quadbench.compile.ai_hub import write_trial_graph
from quadbench.compile.graph_compiler import CompileResult
from quadbench.compile.single_file import single_file
from quadbench.errors import ArtifactError, BuildError, MissingDependencyError, ServiceError, UnknownNameError
from quadbench.results.manifest import file_ref
from quadbench.target.targets import AiHubTarget


@pytest.fixture
def decoder(tmp_path: Path) -> Sources:
    """The decoder alone, which needs no trial."""
    folder = tmp_path / "bundle"
    return [write_decoder(folder)], folder


@dataclass(frozen=True)
class Compiled:
    """What was compiled at a service, in a folder that also has the ledger."""

    hub: AiHubService
    graphs: Sources
    target: AiHubTarget
    folder: Path
    product: CompileResult


@contextmanager
def compiled_at_a_service(folder: Path, target: AiHubTarget) -> Iterator[Compiled]:
    with pytest.MonkeyPatch.context() as patch, hurried_service(folder, patch) as hub:
        graphs = write_graphs(folder / "bundle")
        yield Compiled(hub, graphs, target, folder, compile_at_hub(graphs, folder, target))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiled]:
    """All graphs, as ONNX files. Not to be changed."""
    with compiled_at_a_service(tmp_path_factory.mktemp("compiled"), target_of(qairt_version="2.50")) as once:
        yield once


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiled]:
    """All graphs, as context binaries. Not to be changed."""
    with compiled_at_a_service(tmp_path_factory.mktemp("linked"), target_of(runtime="qnn_context_binary")) as once:
        yield once


def test_graphs_come_back_as_single_files_with_the_inputs_they_had(compiled: Compiled) -> None:
    graphs, folder = compiled.product.graphs, compiled.folder / "compiled"
    assert [graph.file.path for graph in graphs] == [graph.file.path for graph in compiled.graphs[0]]
    for graph in graphs:
        model = onnx.load(folder / graph.file.path)
        assert {value.name for value in model.graph.input} == {spec.name for spec in graph.inputs}
        assert graph.file == file_ref(folder, folder / graph.file.path)


def test_the_service_is_told_runtime_outputs_graph_and_sdk(compiled: Compiled) -> None:
    assert compiled.hub.options()[2] == (
        "--target_runtime precompiled_qnn_onnx --output_names y "
        "--qnn_options context_enable_graphs=unet_restyle --qairt_version 2.50"
    )


def test_the_sdk_that_compiled_stands_in_the_versions(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    assert compile_at_hub(decoder, tmp_path).versions["ai_hub.qairt_sdk_version"] == QAIRT_VERSION


def test_a_product_that_no_npu_runs_carries_a_doubt(
    hub: AiHubService, decoder: Sources, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert compile_at_hub(decoder, tmp_path).caveats == (Caveat.CPU_FALLBACK,)
    says(caplog.text)


def test_a_small_graph_with_lora_inputs_goes_first(compiled: Compiled) -> None:
    assert compiled.hub.uploads[0] == "trial.onnx"


def test_where_lora_inputs_are_refused_nothing_large_is_uploaded(hub: AiHubService, hub_graphs: Sources, tmp_path: Path) -> None:
    hub.faults.failing = {"trial": "Conv with dynamic weights is not supported"}
    with raising(BuildError, "INT16"):
        compile_at_hub(hub_graphs, tmp_path)
    assert hub.uploads == ["trial.onnx"]


def test_a_trial_that_is_not_done_in_time_says_nothing_of_lora_inputs(
    hub: AiHubService, hub_graphs: Sources, tmp_path: Path
) -> None:
    hub.faults.never_done = True
    with raising(ServiceError, "0.2"):
        compile_at_hub(hub_graphs, tmp_path, target_of(timeout_s=0.2))


def test_graphs_without_lora_inputs_need_no_trial(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    compile_at_hub(decoder, tmp_path)
    assert hub.uploads == ["shared/vae_decoder.onnx"]


def test_large_models_go_in_parts(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    large = onnx.load(decoder[1] / "shared/vae_decoder.onnx")
    large.doc_string = "x" * 200_000
    onnx.save(large, decoder[1] / "shared/vae_decoder.onnx")
    compile_at_hub(decoder, tmp_path)
    model = next(model for model in hub.models.values() if model.message.name == "shared/vae_decoder.onnx")
    assert len(model.parts) == 4
    assert model.contents == (decoder[1] / "shared/vae_decoder.onnx").read_bytes()


def test_a_second_run_uploads_and_submits_nothing(compiled: Compiled) -> None:
    hub = compiled.hub
    uploads, submissions = len(hub.uploads), len(hub.submissions)
    assert compile_at_hub(compiled.graphs, compiled.folder, compiled.target) == compiled.product
    assert (len(hub.uploads), len(hub.submissions)) == (uploads, submissions)


def test_models_and_jobs_that_the_service_has_forgotten_are_made_again(
    hub: AiHubService, hub_graphs: Sources, tmp_path: Path
) -> None:
    compile_at_hub(hub_graphs, tmp_path)
    hub.models.clear()
    hub.jobs.clear()
    hub.uploads.clear()
    assert len(compile_at_hub(hub_graphs, tmp_path).graphs) == 4
    assert len(hub.uploads) == 5


def test_a_failed_job_is_told_with_its_reason_id_and_page(hub: AiHubService, hub_graphs: Sources, tmp_path: Path) -> None:
    hub.faults.failing = {"shared/unet": "Unsupported Foo"}
    with raising(ServiceError, "shared/unet.onnx", "/jobs/j"):
        compile_at_hub(hub_graphs, tmp_path)


def test_after_a_failed_job_only_that_one_is_submitted_again(hub: AiHubService, hub_graphs: Sources, tmp_path: Path) -> None:
    hub.faults.failing = {"shared/unet": "out of memory"}
    with raising(ServiceError):
        compile_at_hub(hub_graphs, tmp_path)
    hub.faults.failing, before = {}, len(hub.submissions)
    compile_at_hub(hub_graphs, tmp_path)
    assert [job.compile_job.name.split()[1] for job in hub.submissions[before:]] == ["shared/unet.onnx"]
    assert len(hub.uploads) == 5


def test_a_refused_submission_is_tried_again(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    hub.faults.rate_limited = 4  # the client gives up after three
    assert len(compile_at_hub(decoder, tmp_path).graphs) == 1


def test_a_service_that_keeps_refusing_is_told(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    hub.faults.rate_limited = 100
    with raising(ServiceError):
        compile_at_hub(decoder, tmp_path)


def test_a_service_that_is_away_for_a_while_is_asked_again(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    hub.faults.unavailable = 4  # the client gives up after three
    assert len(compile_at_hub(decoder, tmp_path).graphs) == 1


def test_a_broken_upload_is_begun_again(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    hub.faults.broken_uploads = 1
    assert len(compile_at_hub(decoder, tmp_path).graphs) == 1


def test_uploads_that_keep_breaking_are_told_without_the_signature_of_their_address(
    hub: AiHubService, decoder: Sources, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults.broken_uploads = 1000
    with raising(ServiceError, "shared/vae_decoder.onnx") as raised:
        compile_at_hub(decoder, tmp_path)
    assert "signature" not in str(raised.value) + caplog.text


def test_a_truncated_download_is_begun_again(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    hub.faults.truncated_downloads = 1
    assert len(compile_at_hub(decoder, tmp_path).graphs) == 1


def test_a_damaged_product_is_refused_and_the_next_run_downloads_it_again(
    hub: AiHubService, decoder: Sources, tmp_path: Path
) -> None:
    hub.faults.damaged_downloads = 1
    with raising(BuildError, "shared/vae_decoder.onnx"):
        compile_at_hub(decoder, tmp_path)
    submissions = len(hub.submissions)
    assert len(compile_at_hub(decoder, tmp_path).graphs) == 1
    assert len(hub.submissions) == submissions


def test_a_product_with_other_inputs_is_refused(hub: AiHubService, hub_graphs: Sources, tmp_path: Path) -> None:
    decoder = hub_graphs[0][3]
    wrong = replace(decoder, inputs=(*decoder.inputs, TensorSpec(name="mask", shape=(1,), dtype="int8")))
    with raising(BuildError, "int8", "[1]"):
        compile_at_hub(([wrong], hub_graphs[1]), tmp_path)


def test_a_queue_that_is_too_slow_is_left_with_the_ids_kept(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    hub.faults.never_done = True
    with raising(ServiceError, "0.2", "OPTIMIZING_MODEL"):
        compile_at_hub(decoder, tmp_path, target_of(timeout_s=0.2))
    hub.faults.never_done = False
    compile_at_hub(decoder, tmp_path)
    assert len(hub.submissions) == 1


def test_progress_names_the_job_and_its_state(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    steps: list[str] = []
    compile_at_hub(decoder, tmp_path, notify=steps.append)
    reads(steps, "shared/vae_decoder.onnx", "OPTIMIZING_MODEL", 0, 1)


def test_an_expired_token_is_told_with_what_to_do(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    hub.faults.is_token_expired = True
    with raising(ServiceError, "client.ini", "qai-hub"):
        compile_at_hub(decoder, tmp_path)


def test_a_client_without_configuration_is_told_with_what_to_do(
    decoder: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "absent.ini"))
    with raising(MissingDependencyError, "absent.ini", "qai-hub"):
        compile_at_hub(decoder, tmp_path)


def test_an_unknown_device_is_answered_with_the_known_ones(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    with raising(UnknownNameError, "Samsung Galaxy S26", "S25"):
        compile_at_hub(decoder, tmp_path, target_of(device="Samsung Galaxy S26"))


def test_the_token_is_in_no_log_message_and_no_file(
    hub: AiHubService, decoder: Sources, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        compile_at_hub(decoder, tmp_path)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "client.ini"]
    assert written
    assert TOKEN not in caplog.text
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)


def test_the_client_s_words_stay_off_stdout(
    hub: AiHubService, decoder: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compile_at_hub(decoder, tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"schema_version": 1}']
    + [
        f'{{"schema_version": 1, "services": {services}}}'
        for services in ("[]", '{"https://a": []}', '{"https://a": {"jobs": {"b": 1}}}')
    ],
)
def test_a_damaged_ledger_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "ai-hub.json").write_text(content)
    with raising(ArtifactError, "ai-hub.json"):
        Ledger(path=tmp_path / "ai-hub.json", url="https://a").find("jobs", "b")


def test_an_archive_whose_compressed_bytes_are_damaged_is_told(decoder: Sources, tmp_path: Path) -> None:
    download = tmp_path / "model.onnx.zip"
    with zipfile.ZipFile(download, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.onnx", bytes(10_000))
    content = bytearray(download.read_bytes())
    content[30 + len("a.onnx")] = 0xFF  # the first block, of a kind that does not exist
    download.write_bytes(content)
    with raising(BuildError, "shared/vae_decoder.onnx"):
        single_file(download, tmp_path / "model.onnx", decoder[0][0])


def test_an_archive_of_too_many_files_is_not_unpacked(decoder: Sources, tmp_path: Path) -> None:
    download = tmp_path / "model.onnx.zip"
    with zipfile.ZipFile(download, "w") as archive:
        for number in range(101):
            archive.writestr(f"{number}.onnx", b"")
    with raising(BuildError, "shared/vae_decoder.onnx", 101):
        single_file(download, tmp_path / "model.onnx", decoder[0][0])
    assert not (tmp_path / "unpacked").exists()


def test_a_context_binary_is_compiled_to_dlc_then_linked_a_component_at_a_time(linked: Compiled) -> None:
    assert [graph.file.path for graph in linked.product.graphs] == [
        "shared/unet.bin",
        "per-graph/unet.bin",
        "per-graph/unet.bin",
        "shared/vae_decoder.bin",
    ]
    links = [job.link_job for job in linked.hub.submissions if job.WhichOneof("job") == "link_job"]
    assert [len(link.models.models) for link in links] == [1, 1, 2, 1]  # the first is the trial


def test_linked_graphs_are_one_file_of_one_digest(linked: Compiled) -> None:
    restyle, remove = linked.product.graphs[1:3]
    assert restyle.file == remove.file
    assert isinstance(restyle.file, FileRef)
    assert restyle.task != remove.task


def test_a_context_beside_its_model_is_put_inside_it_and_runs_on_the_emulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime_qnn")
    graph = write_trial_graph(tmp_path)
    with ai_hub_service(tmp_path, compiled_by_qnn) as (_, config):
        monkeypatch.setenv("QAIHUB_CLIENT_INI", str(config))
        product = compile_at_hub(([graph], tmp_path), tmp_path)
    (compiled,) = product.graphs
    assert product.caveats == ()
    rng = np.random.default_rng(0)
    feed = {"x": rng.standard_normal((1, 8, 8, 8)).astype(np.float32)}
    feed |= {spec.name: rng.integers(-3000, 3000, spec.shape).astype(np.int16) for spec in graph.inputs[1:]}
    expected = onnxruntime.InferenceSession(tmp_path / graph.file.path).run(None, feed)[0]
    alone = shutil.copy(tmp_path / "compiled" / compiled.file.path, tmp_path / "alone.onnx")
    np.testing.assert_allclose(run_on_emulator(Path(alone), feed), expected, atol=0.01 * np.abs(expected).max())


def test_another_service_has_entries_of_its_own(hub: AiHubService, decoder: Sources, tmp_path: Path) -> None:
    ledger = {"schema_version": 1, "services": {"https://elsewhere": {"models": {decoder[0][0].file.sha256: "m1"}, "jobs": {}}}}
    (tmp_path / "ai-hub.json").write_text(json.dumps(ledger))
    compile_at_hub(decoder, tmp_path)
    assert hub.uploads == ["shared/vae_decoder.onnx"]
