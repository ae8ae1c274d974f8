"""The main job on the tiny model: everything real, on this machine and on a virtual device."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.postgresql_server import PostgresqlServer
from support.sentences import raising, says
from support.watcher import Silent

pytest.importorskip("torch")

from quadbench import pipeline
from quadbench.artifacts import Bundle, Caveat, Deployment, LaunchPlan, RunRecord, Status, StoredBundle, Variant
from quadbench.cli import main
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.devices.lab.leases import Leases, lease_name
from quadbench.errors import AdapterError, ArtifactError, DeviceFullError, LeaseError, UserError
from quadbench.quad.candidate import Candidate
from quadbench.recipe.recipe import load_recipe
from quadbench.report.kpi import NO_OWN_GRAPH
from quadbench.results.engine import DATABASE_VARIABLE
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.results.stored_runs import load_run


class Watcher(Silent):
    """Keeps what the pipeline tells; `on_launch` may interfere."""

    def __init__(self, on_launch: Callable[[LaunchPlan], None] = lambda _launch: None) -> None:
        self.steps: list[tuple[str, str]] = []
        self.reuses: list[str] = []
        self.deployments: list[Deployment] = []
        self.records: list[RunRecord] = []
        self._on_launch = on_launch

    @property
    def stages(self) -> set[str]:
        return {stage for stage, _ in self.steps}

    def stage_step(self, stage: str, detail: str, share: float | None = None) -> None:
        self.steps.append((stage, detail))

    def bundle_built(self, _bundle: Bundle) -> None: ...

    def artifact_reused(self, stage: str, _digest: str) -> None:
        self.reuses.append(stage)

    def bytes_sent(self, _device: str, _sent_bytes: int, _total_bytes: int) -> None: ...

    def deploy_done(self, deployment: Deployment) -> None:
        self.deployments.append(deployment)

    def launch_started(self, _device: str, launch: LaunchPlan, _number: int, _total: int) -> None:
        self._on_launch(launch)

    def record_stored(self, record: RunRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="module")
def layout(tiny_bundle: StoredBundle, harness: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A results folder that holds the tiny model's bundle and the harness."""
    layout = Layout(tmp_path_factory.mktemp("pipeline"))
    shutil.copytree(tiny_bundle.folder.parent, layout.bundles)
    shutil.copytree(harness.parent.parent, layout.programs)
    return layout


@pytest.fixture(scope="module")
def first_run(tiny_recipe: Path, layout: Layout) -> tuple[pipeline.RunOutcome, Watcher]:
    watcher = Watcher()
    outcome = pipeline.run(load_recipe(tiny_recipe), parse_addresses(["local", "virtual:s25"]), layout=layout, observer=watcher)
    return outcome, watcher


class BuildBegunError(Exception):
    """Ends a run whose build has begun."""


def test_others_have_a_device_while_a_bundle_is_built_for_it(tiny_recipe: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "results")

    class Other(Silent):
        """Takes the device as soon as the build begins."""

        def stage_step(self, stage: str, detail: str, share: float | None = None) -> None:
            if stage == "build":
                with connect(parse_addresses(["virtual:s25"]), layout=layout), leased_by_another(layout):
                    raise BuildBegunError

    with pytest.raises(BuildBegunError):
        pipeline.run(load_recipe(tiny_recipe), parse_addresses(["virtual:s25"]), layout=layout, observer=Other())


@contextmanager
def leased_by_another(layout: Layout) -> Iterator[None]:
    with open_records(layout.database) as records:
        leases = Leases(records.engine)
        lease = leases.take(lease_name("virtual", "virtual-s25"), "another@lab-1", "a run")
        yield
        leases.end(lease)


def test_a_target_of_several_devices_is_compiled_once(first_run: tuple[pipeline.RunOutcome, Watcher]) -> None:
    outcome, watcher = first_run
    compiled = [detail for stage, detail in watcher.steps if stage == "compile"]
    assert len(compiled) == len({graph.file.path for graph in outcome.result.bundle.graphs if graph.variant.is_quantized})
    assert len({record.compiled_digest for record in outcome.result.records}) == 1
    assert [deployment.device.address for deployment in outcome.result.deployments] == ["local", "virtual:s25"]


def _samples(record: RunRecord, metric: str, **wanted: object) -> list[float]:
    return [
        sample.value
        for sample in record.samples
        if sample.metric == metric and all(getattr(sample, key) == value for key, value in wanted.items())
    ]


def test_every_launch_on_every_device_is_ok(first_run: tuple[pipeline.RunOutcome, Watcher]) -> None:
    outcome, watcher = first_run
    assert {(r.device.address, r.variant): r.reason for r in outcome.result.records if r.status is not Status.OK} == {}
    assert outcome.is_ok
    assert (outcome.result.is_cut_short, outcome.result.planned) == (
        False,
        {Variant.FLOAT: 1, Variant.SHARED: 1, Variant.PER_GRAPH: 1},
    )
    assert [(r.device.address, r.variant) for r in watcher.records] == [
        (address, variant)
        for address in ("local", "virtual:s25")
        for variant in (Variant.FLOAT, Variant.SHARED, Variant.PER_GRAPH)
    ]


def test_the_float_graph_gives_the_reference_images_on_every_task(first_run: tuple[pipeline.RunOutcome, Watcher]) -> None:
    for record in first_run[0].result.records:
        if record.variant is Variant.FLOAT:
            for task in ("change", "fill", "imagine"):
                differences = _samples(record, "max_abs_difference", task=task)
                assert len(differences) == 2
                assert max(differences) <= 2


def test_the_quantized_graph_is_near_the_reference(first_run: tuple[pipeline.RunOutcome, Watcher]) -> None:
    for record in first_run[0].result.records:
        if record.variant is Variant.SHARED:
            psnr_db = [s.value for s in record.samples if s.metric == "psnr_db" and s.labels["against"] == "reference"]
            assert len(psnr_db) == 6
            assert sum(psnr_db) / len(psnr_db) > 30


def test_both_devices_give_the_same_images(first_run: tuple[pipeline.RunOutcome, Watcher], layout: Layout) -> None:
    shared = {r.device.address: r.images for r in first_run[0].result.records if r.variant is Variant.SHARED}
    assert shared["local"].keys() == shared["virtual:s25"].keys()
    for key, path in shared["local"].items():
        assert layout.file(path).read_bytes() == layout.file(shared["virtual:s25"][key]).read_bytes()


def test_figures_of_this_machine_carry_their_caveat(first_run: tuple[pipeline.RunOutcome, Watcher]) -> None:
    outcome, _ = first_run
    of_device = {"local": Caveat.THIS_MACHINE, "virtual:s25": Caveat.VIRTUAL_DEVICE}
    assert all(of_device[record.device.address] in record.caveats for record in outcome.result.records)
    assert all(caveat.doubt in _text(outcome.report) for caveat in of_device.values())


def _text(path: Path) -> str:
    import html

    return html.unescape(path.read_text())


def test_switching_adapters_loads_no_session_and_switching_graphs_does(first_run: tuple[pipeline.RunOutcome, Watcher]) -> None:
    for record in first_run[0].result.records:
        unet_loads = len(_samples(record, "session_load_ns", component="unet"))
        switches = len(_samples(record, "switch_ns"))
        if record.variant is Variant.SHARED:
            assert unet_loads == 1
        if record.variant is Variant.PER_GRAPH:
            assert unet_loads == switches


def test_records_are_stored_as_they_were_measured(first_run: tuple[pipeline.RunOutcome, Watcher], layout: Layout) -> None:
    outcome, watcher = first_run
    with open_records(layout.database) as records:
        assert records.run_records(outcome.result.run_id) == tuple(watcher.records)


def test_the_second_run_builds_compiles_and_sends_nothing(
    tiny_recipe: Path, layout: Layout, first_run: tuple[pipeline.RunOutcome, Watcher]
) -> None:
    watcher = Watcher()
    pipeline.run(load_recipe(tiny_recipe), parse_addresses(["local", "virtual:s25"]), layout=layout, observer=watcher)
    assert {"build", "compile"}.isdisjoint(watcher.stages)
    assert watcher.reuses[0] == "bundle"
    assert [deployment.sent_bytes for deployment in watcher.deployments] == [0, 0]
    assert all(deployment.present_bytes > 0 for deployment in watcher.deployments)


def test_a_third_adapter_sends_its_own_bytes_only(
    tiny_recipe: Path, layout: Layout, first_run: tuple[pipeline.RunOutcome, Watcher], tmp_path: Path
) -> None:
    third = Path(shutil.copytree(tiny_recipe.parent / "adapters/first", tmp_path / "third"))
    _scale(third / "adapter_model.safetensors", -1.0)
    watcher, old = Watcher(), first_run[0].result
    admission, deployments = pipeline.admit(
        Candidate(source=third), old.stored, parse_addresses(["virtual:s25"]), layout=layout, observer=watcher
    )
    assert admission.extended
    bundle = admission.extended.artifact
    added = next(a.file for a in bundle.adapters if a.name == "third" and a.variant is Variant.SHARED)
    assert "compile" not in watcher.stages
    assert bundle.graphs == old.bundle.graphs
    assert deployments[0].sent_bytes == added.size_bytes
    assert admission.judgement.acceptance.is_admitted
    assert admission.judgement.gauged.clip_rate == 0
    assert admission.judgement.gauged.worst.sqnr_db > 50


def test_a_second_admission_sends_its_adapter_alone_too(
    tiny_recipe: Path, layout: Layout, first_run: tuple[pipeline.RunOutcome, Watcher], tmp_path: Path
) -> None:
    """It builds on the first one's bundle, which no run has sent; its float adapters run nowhere, and are not sent."""
    bundle = first_run[0].result.stored
    for name in ("fourth", "fifth"):
        folder = Path(shutil.copytree(tiny_recipe.parent / "adapters/first", tmp_path / name))
        _scale(folder / "adapter_model.safetensors", {"fourth": 0.9, "fifth": -0.9}[name])
        admission, deployments = pipeline.admit(
            Candidate(source=folder), bundle, parse_addresses(["local"]), layout=layout, observer=Watcher()
        )
        assert admission.extended
        bundle = admission.extended
        sizes = {a.variant: a.file.size_bytes for a in bundle.artifact.adapters if a.name == name}
        assert [deployment.sent_bytes for deployment in deployments] == [sizes[Variant.SHARED]]
        assert sizes[Variant.SHARED] < sizes[Variant.FLOAT]


def test_a_new_adapter_comes_from_its_file_to_its_figures_in_two_commands(
    tiny_recipe: Path,
    layout: Layout,
    first_run: tuple[pipeline.RunOutcome, Watcher],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    new = Path(shutil.copytree(tiny_recipe.parent / "adapters/first", tmp_path / "sixth"))
    _scale(new / "adapter_model.safetensors", 0.8)
    results = ["--results", str(layout.root), "--json"]
    assert main(["adapter", "admit", str(new), "--recipe", str(tiny_recipe), "--like", "change", *results]) == 0
    output = capsys.readouterr()
    says(output.err, "1/2 judge 2/2 paint", snapshot=False)
    folder = json.loads(output.out)["bundle"]
    assert main(["run", str(tiny_recipe), "--bundle", folder, "--devices", "local", *results]) == 0
    answer = json.loads(capsys.readouterr().out)
    figures = {(row["task"], row["key"]): row["shared"] for row in answer["kpis"]}
    assert figures["sixth", "end_to_end"]["value"] > 0
    assert next(row for row in answer["quality"] if row["task"] == "sixth")["shared_reference"] > 15
    assert {record["status"] for record in answer["records"]} == {"OK"}  # the float graph paints diffusers' pictures of it
    says(" ".join(answer["gaps"]), "Per-graph")
    per_graph = {(row["task"], row["key"]): row["per_graph"] for row in answer["kpis"]}
    assert all(per_graph[task, "end_to_end"]["value"] > 0 for task in ("change", "fill", "imagine"))
    assert per_graph["sixth", "end_to_end"] == NO_OWN_GRAPH
    assert main(["compare", first_run[0].result.run_id, answer["run_id"], *results]) == 0
    told = json.loads(capsys.readouterr().out)["sentences"]
    says(told, "On local", "change and fill and imagine", snapshot=False)
    assert main(["run", "quickstart", "--bundle", folder, *results]) == 2
    says(capsys.readouterr().err, "quickstart")


def _scale(path: Path, factor: float) -> None:
    from safetensors.torch import load_file, save_file

    save_file({key: factor * tensor for key, tensor in load_file(path).items()}, path)


def test_an_adapter_with_a_site_that_the_base_lacks_is_not_admitted(
    tiny_recipe: Path, first_run: tuple[pipeline.RunOutcome, Watcher], layout: Layout, tmp_path: Path
) -> None:
    from support.tiny_model import write_adapter

    from quadbench.quad.model.foundation import load_foundation

    write_adapter(load_foundation(tiny_recipe.parent / "model").unet, tmp_path, r=4, target_modules=["conv_out"])
    with raising(AdapterError, 0, 1, "conv_out"):
        pipeline.admit(Candidate(source=tmp_path), first_run[0].result.stored, [], layout=layout, observer=Watcher())


def test_a_taken_name_is_not_admitted(tiny_recipe: Path, first_run: tuple[pipeline.RunOutcome, Watcher], layout: Layout) -> None:
    folder = tiny_recipe.parent / "adapters/first"
    with raising(UserError, "first"):
        pipeline.admit(Candidate(source=folder), first_run[0].result.stored, [], layout=layout, observer=Watcher())


@pytest.mark.slow
def test_a_killed_harness_leaves_a_failed_record_with_its_samples(
    tiny_recipe: Path, layout: Layout, first_run: tuple[pipeline.RunOutcome, Watcher], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    shutil.copytree(tiny_recipe.parent, tmp_path, dirs_exist_ok=True)
    recipe.write_text(recipe.read_text().replace("iterations: 2", "iterations: 100000"))

    pattern = rf"{layout.device('local').resolve()}/objects/[0-9a-f]{{64}} .*runs/"

    def kill_later(launch: LaunchPlan) -> None:
        if launch.variant is not Variant.FLOAT:
            threading.Timer(4, subprocess.run, [["pkill", "-KILL", "-f", pattern]]).start()

    outcome = pipeline.run(load_recipe(recipe), parse_addresses(["local"]), layout=layout, observer=Watcher(kill_later))
    cut = [record for record in outcome.result.records if record.variant is not Variant.FLOAT]
    assert [record.status for record in cut] == [Status.FAILED, Status.FAILED]
    assert all("SIGKILL" in str(record.reason) for record in cut)
    assert all(_samples(record, "unet_ns") for record in cut)
    assert not outcome.is_ok
    assert "SIGKILL" in _text(outcome.report)


def test_a_full_device_is_refused_before_anything_is_sent(
    tiny_recipe: Path, layout: Layout, first_run: tuple[pipeline.RunOutcome, Watcher]
) -> None:
    watcher = Watcher()
    with pytest.raises(DeviceFullError, match="MB"):
        pipeline.run(load_recipe(tiny_recipe), parse_addresses(["virtual:tabs11?data_mb=16"]), layout=layout, observer=watcher)
    assert watcher.records == []


def test_one_full_device_does_not_stop_the_other(
    tiny_recipe: Path, layout: Layout, first_run: tuple[pipeline.RunOutcome, Watcher]
) -> None:
    addresses = ["local", "virtual:tabs11?data_mb=16"]
    outcome = pipeline.run(load_recipe(tiny_recipe), parse_addresses(addresses), layout=layout, observer=Watcher())
    assert list(outcome.failures) == ["virtual:tabs11?data_mb=16"]
    assert {record.device.address for record in outcome.result.records} == {"local"}


def test_a_cut_manifest_is_refused_with_what_to_do(
    tiny_recipe: Path, layout: Layout, first_run: tuple[pipeline.RunOutcome, Watcher], tmp_path: Path
) -> None:
    shutil.copytree(layout.bundles, tmp_path / "bundles")
    manifest = tmp_path / "bundles" / first_run[0].result.stored.folder.name / "manifest.json"
    manifest.write_text(manifest.read_text()[:200])
    with raising(ArtifactError, "manifest.json"):
        pipeline.run(load_recipe(tiny_recipe), parse_addresses(["local"]), layout=Layout(tmp_path), observer=Watcher())


@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_an_interrupted_run_keeps_what_was_measured_and_leaves_no_process(
    how: signal.Signals,
    code: int,
    tiny_recipe: Path,
    layout: Layout,
    first_run: tuple[pipeline.RunOutcome, Watcher],
    tmp_path: Path,
) -> None:
    shutil.copytree(tiny_recipe.parent, tmp_path, dirs_exist_ok=True)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("iterations: 2", "iterations: 100000"))
    words = ["run", str(recipe), "--devices", "virtual:tabs11", "--results", str(layout.root)]
    process = subprocess.Popen(
        [sys.executable, "-m", "quadbench", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr
    for line in process.stderr:
        if "float 0 (1 of 3): OK" in line:
            break
    time.sleep(3)
    assert _sandbox_processes(layout)
    os.kill(process.pid, how)
    if how is signal.SIGINT:  # the first one lets the launch go on
        time.sleep(2)
        assert process.poll() is None
        os.kill(process.pid, how)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == code
    with open_records(layout.database) as records:
        last = records.run_records(records.run_ids()[0])
    run_id = last[0].run_id
    says(rest, run_id, "quadbench run", "--resume", "--results", snapshot=False)
    assert load_run(layout, run_id).is_cut_short
    assert [record.status for record in last] == [Status.OK, Status.ABORTED]
    assert _samples(last[1], "unet_ns")
    assert _sandbox_processes(layout) == []


def _sandbox_processes(layout: Layout) -> list[str]:
    """The command lines of processes that have to do with the virtual device."""
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(layout.device("virtual-tabs11")) in line]


def test_a_device_that_somebody_has_reserved_takes_no_run(tiny_recipe: Path, tmp_path: Path) -> None:
    fresh = Layout(tmp_path / "results")
    with open_records(fresh.database) as records:
        Leases(records.engine).reserve(lease_name("local", "local"), "ana@lab-1", "a demo", 3600)
    with raising(LeaseError, "local@", "ana@lab-1"):
        pipeline.run(load_recipe(tiny_recipe), parse_addresses(["local"]), layout=fresh, observer=Watcher())
    assert not fresh.bundles.exists()


@pytest.mark.slow
def test_a_run_with_its_records_in_postgresql_is_the_same(
    tiny_recipe: Path,
    layout: Layout,
    first_run: tuple[pipeline.RunOutcome, Watcher],
    postgresql: PostgresqlServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, postgresql.new_database())
    outcome = pipeline.run(load_recipe(tiny_recipe), parse_addresses(["local", "virtual:s25"]), layout=layout, observer=Watcher())
    assert outcome.is_ok
    assert list(map(_identity, outcome.result.records)) == list(map(_identity, first_run[0].result.records))
    assert load_run(layout).run_id == outcome.result.run_id
    with open_records(layout.database) as records:
        assert outcome.result.run_id not in records.run_ids()


def _identity(record: RunRecord) -> tuple[object, ...]:
    """What is the same in a record of every run: neither times nor ids."""
    return record.device.address, record.variant, record.launch, record.status, record.versions, record.settings
