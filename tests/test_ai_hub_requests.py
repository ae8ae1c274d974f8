"""AI Hub's requests: a dry run shows each one before it is sent, and options and names are those that the service gets."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("qai_hub")
pytest.importorskip("onnx")

import onnx
from support.ai_hub_graphs import FAST, Sources, compile_at_hub, target_of, write_decoder
from support.ai_hub_service import AiHubService, ai_hub_service, optimized_by_onnxruntime
from support.sentences import raising

from quadbench.cli import main
from quadbench.compile.ai_hub import AiHubCompiler, HubRequest
from quadbench.errors import BuildError, ServiceError, UserError
from quadbench.target.targets import AiHubTarget, target_key


def planned(graphs: Sources, folder: Path, target: AiHubTarget) -> tuple[HubRequest, ...]:
    return AiHubCompiler(target=target, ledger=folder / "ai-hub.json", pace=FAST).plan(*graphs)


def of_kind(requests: tuple[HubRequest, ...], kind: str) -> list[HubRequest]:
    return [request for request in requests if request.kind == kind]


def with_io(change: Callable[[onnx.ValueInfoProto], None]) -> Callable[[bytes], dict[str, bytes]]:
    """Return a compiler whose product has inputs of other types than the graph that was sent."""

    def compile_onnx(source: bytes) -> dict[str, bytes]:
        model = onnx.load_from_string(optimized_by_onnxruntime(source)["model.onnx"])
        for value in model.graph.input:
            change(value)
        return {"model.onnx": model.SerializeToString()}

    return compile_onnx


@pytest.mark.parametrize("runtime", ["precompiled_qnn_onnx", "qnn_context_binary"])
def test_a_dry_run_shows_every_request_in_the_order_in_which_they_are_sent(
    runtime: str, hub: AiHubService, hub_graphs: Sources, tmp_path: Path
) -> None:
    target = target_of(runtime=runtime, qairt_version="2.50", quantize_io=True)
    requests = planned(hub_graphs, tmp_path, target)
    assert (hub.uploads, hub.submissions) == ([], [])
    compile_at_hub(hub_graphs, tmp_path, target)
    assert [request.name for request in of_kind(requests, "upload")] == hub.uploads
    jobs = [getattr(job, job.WhichOneof("job")) for job in hub.submissions]
    sent = [(type(job).__name__, job.options, job.name) for job in jobs]
    kinds = {"compile": "CompileJob", "link": "LinkJob"}
    shown = [(kinds[request.kind], request.options, request.name) for request in requests if request.kind in kinds]
    assert sorted(word[:2] for word in shown) == sorted(word[:2] for word in sent)
    assert all(any(name.startswith(plan[2]) for name in (job[2] for job in sent)) for plan in shown)
    assert len(of_kind(requests, "download")) == (len(shown) - 5 if runtime == "qnn_context_binary" else 5)


def test_what_was_sent_before_a_break_is_shown_with_its_id(hub: AiHubService, hub_graphs: Sources, tmp_path: Path) -> None:
    hub.faults.failing = {"shared/vae_decoder": "out of memory"}
    with raising(ServiceError):
        compile_at_hub(hub_graphs, tmp_path)
    requests = planned(hub_graphs, tmp_path, target_of())
    assert {request.known is not None for request in of_kind(requests, "compile")} == {True}
    assert of_kind(requests, "upload") == []


def test_a_dry_run_works_without_an_account(hub_graphs: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "absent.ini"))
    requests = planned(hub_graphs, tmp_path, target_of())
    assert len(of_kind(requests, "compile")) == 5
    assert {request.known for request in requests} == {None}


def test_a_job_is_named_by_program_file_and_digest(hub: AiHubService, tmp_path: Path) -> None:
    decoder = write_decoder(tmp_path / "bundle")
    compile_at_hub(([decoder], tmp_path / "bundle"), tmp_path)
    assert [job.compile_job.name for job in hub.submissions] == [f"quadbench shared/vae_decoder.onnx {decoder.file.sha256[:12]}"]


def test_quantize_io_is_sent_where_the_target_asks_for_it_and_has_a_key_of_its_own(hub: AiHubService, tmp_path: Path) -> None:
    graphs = [write_decoder(tmp_path / "bundle")], tmp_path / "bundle"
    for target in (target_of(), target_of(quantize_io=True)):
        compile_at_hub(graphs, tmp_path, target)
    assert [options.split().count("--quantize_io") for options in hub.options()] == [0, 1]
    assert target_key(target_of(quantize_io=True), "") == f"{target_key(target_of(), '')}-quantize-io"


@pytest.mark.parametrize(
    ("name", "kind", "quantize_io", "word"),
    [
        ("x", onnx.TensorProto.UINT16, True, "uint16"),
        ("lora.trial.down", onnx.TensorProto.FLOAT, False, "lora.trial.down"),
    ],
    ids=["float inputs as integers", "LoRA inputs as floats"],
)
def test_inputs_of_other_types_than_the_harness_gives_are_seen_in_the_trial_and_the_hint_names_the_option(
    name: str, kind: int, quantize_io: bool, word: str, hub_graphs: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(value: onnx.ValueInfoProto) -> None:
        if value.name == name:
            value.type.tensor_type.elem_type = kind

    with ai_hub_service(tmp_path, with_io(change)) as (service, config):
        monkeypatch.setenv("QAIHUB_CLIENT_INI", str(config))
        with raising(BuildError, word) as raised:
            compile_at_hub(hub_graphs, tmp_path, target_of(quantize_io=quantize_io))
    assert "quantize_io" in (raised.value.hint or "")
    assert service.uploads == ["trial.onnx"]


def test_a_dry_run_of_another_target_is_refused(tmp_path: Path) -> None:
    code = main(["compile", "quickstart", "--target", "virtual:s25", "--dry-run", "--results", str(tmp_path)])
    assert code == UserError.exit_code
    assert not list(tmp_path.glob("bundles/*"))
