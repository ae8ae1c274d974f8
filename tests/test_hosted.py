"""Hosted devices: a run at AI Hub, a service on loopback with invented times and bytes, gives records of them."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")  # its version is part of a bundle's digest
pytest.importorskip("qai_hub")

from rich.console import Console
from support.ai_hub_service import DEVICE, PROFILE_US, AiHubService, ai_hub_service
from support.bundles import write_recipe_bundle
from support.sentences import raising, says
from support.watcher import Silent

from quadbench import pipeline
from quadbench.ai_hub.client import JobStatus
from quadbench.artifacts import Caveat, Component, FileRef, Graph, RunRecord, Sample, Status, Variant
from quadbench.cli.console import RunConsole
from quadbench.devices import list_devices
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.errors import ServiceError, UserError
from quadbench.measure.hosted import GraphProfile, cpu_layers, fewest_runs, samples_of
from quadbench.recipe.recipe import load_recipe
from quadbench.report.kpi import Figure, kpi_rows
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import RunFile, change_run

PROFILE = Path(__file__).parents[1] / "device_profiles/s25.yaml"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AiHubService]:
    folder = tmp_path_factory.mktemp("service")
    impatient = PROFILE.read_text().replace("name: s25", "name: impatient").replace("qnn_onnx}", "qnn_onnx, timeout_s: 1}")
    (folder / "impatient.yaml").write_text(impatient)
    (folder / "second.yaml").write_text(PROFILE.read_text().replace("name: s25", "name: second"))
    with pytest.MonkeyPatch.context() as patch, ai_hub_service(folder) as (running, config):
        patch.setenv("QAIHUB_CLIENT_INI", str(config))
        patch.setenv("QUADBENCH_DEVICE_PROFILES", str(folder))
        yield running


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A results folder with a bundle of the quickstart, of graphs of one layer."""
    layout = Layout(tmp_path_factory.mktemp("hosted"))
    write_recipe_bundle(load_recipe("quickstart"), layout)
    return layout


@pytest.fixture(scope="module")
def outcome(service: AiHubService, layout: Layout) -> pipeline.RunOutcome:
    return _run(["hub:s25"], layout)


def _run(addresses: list[str], layout: Layout) -> pipeline.RunOutcome:
    with RunConsole(Console(file=io.StringIO())) as observer:
        return pipeline.run(load_recipe("quickstart"), parse_addresses(addresses), layout=layout, observer=observer)


@pytest.fixture(autouse=True)
def no_faults(service: AiHubService) -> Iterator[None]:
    yield
    service.faults.failing, service.faults.never_done = {}, False


def _record(outcome: pipeline.RunOutcome, variant: Variant) -> RunRecord:
    return next(record for record in outcome.result.records if record.variant is variant)


def _values(record: RunRecord, metric: str, **wanted: object) -> list[float]:
    return [s.value for s in record.samples if s.metric == metric and all(getattr(s, k) == v for k, v in wanted.items())]


def test_each_variant_is_a_record_of_the_hosted_device(outcome: pipeline.RunOutcome) -> None:
    assert [(r.variant, r.status) for r in outcome.result.records] == [
        (Variant.SHARED, Status.OK),
        (Variant.PER_GRAPH, Status.OK),
    ]
    device = outcome.result.records[0].device
    assert (device.address, device.family, device.serial, device.android_release) == ("hub:s25", "ai_hub", DEVICE, "15")


def test_microseconds_become_nanoseconds_run_by_run(outcome: pipeline.RunOutcome) -> None:
    shared = _record(outcome, Variant.SHARED)
    expected = [time_us * 1000 for time_us in PROFILE_US]
    for component in Component:
        assert _values(shared, "inference_ns", component=component) == expected


def test_one_graph_per_task_is_measured_task_by_task(outcome: pipeline.RunOutcome) -> None:
    record = _record(outcome, Variant.PER_GRAPH)
    for task in ("restyle", "remove-object"):
        assert len(_values(record, "inference_ns", component="unet", labels={"unet": task})) == len(PROFILE_US)


def test_job_ids_and_pages_are_kept(outcome: pipeline.RunOutcome, service: AiHubService) -> None:
    job, page = _record(outcome, Variant.SHARED).state["job.shared/unet"].split()
    assert job in service.jobs
    assert page == f"{service.url}/jobs/{job}/"


def test_the_sdk_that_compiled_is_kept(outcome: pipeline.RunOutcome) -> None:
    assert _record(outcome, Variant.SHARED).versions["compile.ai_hub.qairt_sdk_version"] == "0.0.0-loopback"


def test_few_runs_and_graphs_left_to_the_cpu_are_doubts(outcome: pipeline.RunOutcome) -> None:
    assert _record(outcome, Variant.SHARED).caveats == (Caveat.FEW_SAMPLES, Caveat.CPU_FALLBACK)


def test_the_sizes_of_what_a_device_would_hold_are_kept(outcome: pipeline.RunOutcome) -> None:
    shared = _record(outcome, Variant.SHARED)
    adapters = {s.labels["adapter"]: s.value for s in shared.samples if s.labels.get("kind") == "adapter"}
    files = {a.name: a.file.size_bytes for a in outcome.result.bundle.adapters if a.variant is Variant.SHARED}
    assert adapters == files
    assert _values(shared, "rom_bytes", component="unet", labels={"kind": "base", "unet": "base"})[0] > 0


def test_the_report_shows_single_runs_of_the_graphs(outcome: pipeline.RunOutcome) -> None:
    rows = {row.key: row for row in kpi_rows(outcome.result) if row.task == "restyle"}
    cell = rows["unet_run"].shared
    assert isinstance(cell, Figure)
    assert cell.value == 1_100_000
    assert "end_to_end" not in rows
    says(outcome.report.read_text())


def test_compiled_models_are_not_uploaded_to_be_run(outcome: pipeline.RunOutcome, service: AiHubService) -> None:
    graphs = [graph for graph in outcome.result.bundle.graphs if graph.variant.is_quantized]
    assert len(service.uploads) == len(graphs) + 1  # the trial


def test_another_run_measures_again_and_compiles_nothing(
    outcome: pipeline.RunOutcome, service: AiHubService, layout: Layout
) -> None:
    kinds_before = [job.WhichOneof("job") for job in service.submissions]
    _run(["hub:s25"], layout)
    added = [job.WhichOneof("job") for job in service.submissions[len(kinds_before) :]]
    assert added == ["inference_job"] * kinds_before.count("inference_job")


def test_a_job_that_fails_is_a_failed_record_with_its_reason(
    outcome: pipeline.RunOutcome, service: AiHubService, layout: Layout
) -> None:
    service.faults.failing = {"shared/unet": "the device rebooted"}
    again = _run(["hub:s25"], layout)
    shared, per_graph = _record(again, Variant.SHARED), _record(again, Variant.PER_GRAPH)
    assert shared.status is Status.FAILED
    says(str(shared.reason), "shared/unet")
    assert _values(shared, "inference_ns", component="vae_decoder")
    assert per_graph.status is Status.OK


def test_jobs_that_were_not_done_in_time_are_waited_for_by_the_next_run(
    outcome: pipeline.RunOutcome, service: AiHubService, layout: Layout
) -> None:
    service.faults.never_done = True
    with raising(ServiceError, 1):
        _run(["hub:impatient"], layout)
    service.faults.never_done, before = False, len(service.submissions)
    assert _run(["hub:s25"], layout).is_ok
    assert len(service.submissions) == before


def test_a_run_goes_on_until_each_of_its_hosted_phones_was_measured(
    outcome: pipeline.RunOutcome, service: AiHubService, layout: Layout
) -> None:
    begun = outcome.result.run_id

    def forget_one(run: RunFile | None) -> RunFile:
        assert run
        return replace(run, hosted=(*run.hosted, "hub:second"), left_out={"hub:second": "it was away"}, is_ended=False)

    change_run(layout, begun, forget_one)
    assert pipeline.resume(begun, parse_addresses(["hub:s25"]), layout=layout, observer=Silent()).result.is_cut_short
    whole = pipeline.resume(begun, layout=layout, observer=Silent()).result
    assert (whole.is_cut_short, whole.left_out) == (False, {})


def test_a_hosted_phone_is_measured_where_no_other_device_can_be_reached(
    outcome: pipeline.RunOutcome, service: AiHubService, layout: Layout
) -> None:
    addresses, conduct = ["s25@ABSENT", "hub:s25"], pipeline.RunOptions(keep_going=True)
    alone = pipeline.run(load_recipe("quickstart"), parse_addresses(addresses), options=conduct, layout=layout, observer=Silent())
    assert list(alone.failures) == ["s25@ABSENT"]
    assert {record.device.address for record in alone.result.records} == {"hub:s25"}


def test_a_hosted_phone_is_measured_where_nothing_can_be_pushed_to_the_other_device(
    outcome: pipeline.RunOutcome, service: AiHubService, layout: Layout, harness: Path
) -> None:
    shutil.copytree(harness.parent, layout.programs / harness.parent.name, dirs_exist_ok=True)
    beside = _run(["virtual:s25?data_mb=4", "hub:s25"], layout)
    assert "has 4.0 MB free" in str(beside.failures["virtual:s25?data_mb=4"])
    assert {record.device.address for record in beside.result.records} == {"hub:s25"}


def test_a_profile_without_a_hosted_target_is_refused(service: AiHubService, tmp_path: Path) -> None:
    with raising(UserError, "tabs11", "hosted_target"):
        _run(["hub:tabs11"], Layout(tmp_path))


def test_a_hosted_phone_given_twice_is_refused(service: AiHubService, tmp_path: Path) -> None:
    with raising(UserError, "hub:s25", 2):
        _run(["hub:s25", "hub:s25"], Layout(tmp_path))


def test_nothing_is_pushed_to_a_hosted_phone(tmp_path: Path) -> None:
    with (
        raising(UserError),
        connect(parse_addresses(["hub:s25"]), layout=Layout(tmp_path)),
    ):
        pass


def test_hosted_devices_are_listed() -> None:
    hosted = [row for row in list_devices() if row.state == "hosted"]
    assert all(row.address.startswith("hub:") for row in hosted)
    assert [row.address for row in hosted if row.serial == DEVICE] == ["hub:impatient", "hub:s25", "hub:second"]
    assert ("hub:s24", "Samsung Galaxy S24 (Family)") in [(row.address, row.serial) for row in hosted]


def _profiled(summary: dict[str, object], layers: list[dict[str, object]] | None = None) -> GraphProfile:
    file = FileRef(path="shared/unet.onnx", sha256="0" * 64, size_bytes=1)
    return GraphProfile(
        graph=Graph(variant=Variant.SHARED, component=Component.UNET, file=file, inputs=(), outputs=()),
        status=JobStatus(job="j1", url="http://127.0.0.1", state="SUCCESS", is_finished=True, is_ok=True, message=""),
        profile={"execution_summary": summary, "execution_detail": layers or []},
    )


def test_a_profile_without_single_runs_gives_the_service_s_estimate() -> None:
    samples = samples_of(_profiled({"estimated_inference_time": 70, "inference_memory_peak_range": None}), {"unet": "base"})
    assert list(samples) == [
        Sample(metric="inference_ns", value=70_000.0, component=Component.UNET, iteration=0, labels={"unet": "base"})
    ]


def test_the_graph_that_ran_the_least_says_how_often_graphs_ran() -> None:
    often = samples_of(_profiled({"all_inference_times": [70] * 30}), {"unet": "base"})
    once = samples_of(_profiled({"estimated_inference_time": 70, "first_load_time": 5}), {"unet": "other"})
    assert fewest_runs([*often, *once]) == 1
    assert fewest_runs([]) == 0


def test_layers_on_the_cpu_are_named() -> None:
    layers: list[dict[str, object]] = [{"name": "resize", "compute_unit": "CPU"}, {"name": "conv", "compute_unit": "NPU"}]
    assert cpu_layers(_profiled({}, layers)) == ["resize"]


@pytest.mark.parametrize(
    "summary",
    [
        {}, {"estimated_inference_time": "70"}, {"estimated_inference_time": True}, {"all_inference_times": 70},
        {"all_inference_times": [float("nan")]}, {"estimated_inference_time": 70, "inference_memory_peak_range": [1]},
    ],
)  # fmt: skip
def test_a_profile_of_another_form_is_refused_by_its_job(summary: dict[str, object]) -> None:
    with raising(ServiceError):
        list(samples_of(_profiled(summary), {}))
