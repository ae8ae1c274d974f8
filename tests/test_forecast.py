"""Forecast: what a run would build, push and run is told without doing any of it, and is what the run then does."""

import json
from pathlib import Path

import pytest
from support.bundles import write_recipe_bundle
from support.kit_files import write_runtime
from support.sentences import raising, reads, says
from support.stub_ndk import write_stub_ndk
from support.watcher import Silent

from quadbench.artifacts import MIB
from quadbench.cli import main
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.errors import ArtifactError, SpecError, UserError
from quadbench.harness.program import NDK_VARIABLE, OVERRIDE
from quadbench.kits import store
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.rollout import roll_out
from quadbench.rollout.forecast import device_problems, forecast, forecast_of_bundle
from quadbench.target.abi import Abi

pytest.importorskip("onnx")

QUICKSTART = load_recipe("quickstart")


@pytest.fixture
def layout(tmp_path: Path, harness: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An empty results folder; the harness of this machine is there."""
    monkeypatch.setenv(OVERRIDE, str(harness))
    monkeypatch.delenv(NDK_VARIABLE, raising=False)
    return Layout(tmp_path / "results")


def test_nothing_is_built_for_a_forecast(layout: Layout, harness: Path) -> None:
    (one,) = forecast(QUICKSTART, parse_addresses(["virtual:s25"]), layout=layout)
    assert (one.bundle, one.launches, one.to_build, one.missing) == (None, None, ("the bundle",), ())
    assert one.push_bytes["harness"] == harness.stat().st_size
    assert not layout.root.exists()


def test_the_bytes_of_a_forecast_are_those_that_a_rollout_pushes(layout: Layout) -> None:
    bundle = write_recipe_bundle(QUICKSTART, layout)
    (before,) = forecast(QUICKSTART, parse_addresses(["local"]), layout=layout)
    reads(before.to_build, before.target)
    with connect(parse_addresses(["local"]), layout=layout) as devices:
        (deployment,) = roll_out([bundle] * len(devices), devices, layout=layout, observer=Silent()).deployments
    (after,) = forecast(QUICKSTART, parse_addresses(["local"]), layout=layout)
    assert (after.to_build, after.missing) == ((), ())
    assert sum(after.push_bytes.values()) == deployment.sent_bytes
    assert all(after.push_bytes[what] for what in ("harness", "runtime", "base", "per-graph", "adapters"))
    assert after.bundle == bundle.artifact.digest


def test_what_is_damaged_here_is_refused_though_the_device_holds_it_whole(layout: Layout) -> None:
    bundle = write_recipe_bundle(QUICKSTART, layout)
    with connect(parse_addresses(["local"]), layout=layout) as devices:
        (installation,) = roll_out([bundle], devices, layout=layout, observer=Silent()).installations
        graph, adapter = installation.compiled.artifact.graphs[0], bundle.artifact.adapters[0]
        for path in (bundle.path(adapter.file), installation.compiled.path(graph.file)):
            path.write_bytes(path.read_bytes()[:-1] + b"?")
            with raising(ArtifactError, path.name, path.parents[1]):
                roll_out([bundle], devices, layout=layout, observer=Silent())


def test_the_launches_are_those_of_the_schedule(layout: Layout) -> None:
    write_recipe_bundle(QUICKSTART, layout)
    (one,) = forecast(QUICKSTART, parse_addresses(["local"]), layout=layout)
    measured = QUICKSTART.measure.launches * (1 + len(QUICKSTART.baselines))
    assert one.launches in (measured, measured + 1)  # with the float launch
    assert (one.images or 0) >= measured * len(QUICKSTART.tasks) * QUICKSTART.measure.iterations


def test_a_phone_takes_the_harness_and_the_kit_of_its_abi(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe_bundle(QUICKSTART, layout)
    runtime = write_runtime(tmp_path / "kit")
    store.add_kit([runtime], Abi.ARM64_V8A, layout)
    monkeypatch.setenv(NDK_VARIABLE, str(write_stub_ndk(tmp_path / "ndk").folder))
    (one,) = forecast(QUICKSTART, parse_addresses(["s25"]), layout=layout)
    assert (one.abi, one.target) == (Abi.ARM64_V8A, "onnxruntime-cpu-aarch64")
    assert one.push_bytes["runtime"] == runtime.stat().st_size
    reads(one.to_build[0], "arm64-v8a")
    assert all(one.push_bytes[what] for what in ("base", "per-graph", "adapters"))
    assert one.missing == ()


def test_everything_that_a_phone_lacks_is_named(layout: Layout) -> None:
    (one,) = forecast(QUICKSTART, parse_addresses(["s25@R3X"]), layout=layout)
    ndk, kit = one.missing
    says(ndk, "ANDROID_NDK_HOME")
    reads(kit, "s25@R3X", "arm64-v8a", "onnxruntime-cpu-aarch64", "quadbench runtime fetch", "onnxruntime-android")


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("virtual:s25?target=qnn", "qnn-v79-69"),
        ("s25?target=qnn", "qnn-v79-69"),
        ("s25?target=xnnpack", "onnxruntime-xnnpack-aarch64"),
        ("tabs11@R5?target=cpu", "onnxruntime-cpu-aarch64"),
        ("virtual:s25?abi=arm64-v8a", "onnxruntime-cpu-aarch64"),
    ],
)
def test_the_target_that_an_address_asks_for_counts(address: str, target: str, layout: Layout) -> None:
    (one,) = forecast(QUICKSTART, parse_addresses([address]), layout=layout)
    assert one.target == target


def test_a_target_without_contexts_is_told_before_anything_is_built() -> None:
    recipe = QUICKSTART.model_copy(update={"baselines": ("per-graph", "context-shared")})
    problems = list(device_problems(recipe, parse_addresses(["virtual:s25", "virtual:s25?target=qnn", "s25?target=qnn"])))
    assert [problem.location for problem in problems] == [("baselines", 1)] * 2
    says([problem.reason for problem in problems], "'virtual:s25'", "'virtual:s25?target=qnn'")


def test_a_virtual_phone_for_arm64_takes_what_boards_do(layout: Layout) -> None:
    (one,) = forecast(QUICKSTART, parse_addresses(["virtual:s25?abi=arm64-v8a"]), layout=layout)
    assert one.abi is Abi.ARM64_LINUX
    says(one.missing[-1], "onnxruntime-cpu-aarch64", "quadbench runtime fetch", "onnxruntime-linux")


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        (["hub:s25"], "hub:s25"),
        ([], ""),
        (["s52"], ""),
    ],
)
def test_a_device_that_takes_no_files_or_is_unknown_is_refused(addresses: list[str], reason: str, layout: Layout) -> None:
    with raising(UserError, reason):
        forecast(QUICKSTART, parse_addresses(addresses), layout=layout)


def test_a_dry_run_prints_a_block_for_each_device(layout: Layout, harness: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe_bundle(QUICKSTART, layout)
    words = ["run", "quickstart", "--devices", "virtual:s25,s25", "--dry-run", "--results", str(layout.root)]
    assert main(words) == 0
    virtual, phone = capsys.readouterr().out.split("\n\n")
    assert virtual.startswith("virtual:s25: Galaxy S25, x86_64-linux, onnxruntime-cpu-x86_64; bundle ")
    assert f"harness {harness.stat().st_size / MIB:19.1f} MB" in virtual
    assert "missing" not in virtual
    says(phone, "arm64-v8a")
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema_version"] == 1
    assert [device["address"] for device in answer["devices"]] == ["virtual:s25", "s25"]


def test_a_bundle_that_is_built_has_a_forecast_too(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_recipe_bundle(QUICKSTART, layout)
    known = forecast(QUICKSTART, parse_addresses(["virtual:s25"]), layout=layout)
    assert forecast_of_bundle(bundle, QUICKSTART.terms, parse_addresses(["virtual:s25"]), layout=layout) == known
    assert sum(known[0].adapter_bytes.values()) == known[0].push_bytes["adapters"]
    words = ["--devices", "virtual:s25", "--dry-run", "--results", str(layout.root)]
    for source in ([str(bundle.folder)], ["quickstart", "--bundle", str(bundle.folder)]):
        assert main(["run", *source, *words]) == 0
        shown = capsys.readouterr().out
        assert f"bundle {bundle.artifact.digest[:12]}" in shown
        assert "adapters: restyle 0." in shown
    with connect(parse_addresses(["virtual:s25"]), layout=layout) as devices:
        (deployment,) = roll_out([bundle], devices, layout=layout, observer=Silent()).deployments
    (after,) = forecast_of_bundle(bundle, QUICKSTART.terms, parse_addresses(["virtual:s25"]), layout=layout)
    assert sum(after.push_bytes.values()) == deployment.sent_bytes


def test_a_forecast_names_a_compiler_that_is_missing_though_no_bundle_is_there(layout: Layout) -> None:
    pytest.importorskip("ai_edge_litert")
    (one,) = forecast(QUICKSTART, parse_addresses(["tabs11?target=litert"]), layout=layout)
    assert "the bundle" in one.to_build
    says(one.missing, "MediaTek", "ai-edge-litert-sdk-mediatek", "litert-mt6991")


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        (["virtual:s25?scenario=nope"], ("nope",)),
        (["virtual:s25?scenario=/dev/zero"], ("/dev/zero",)),
        (["virtual:s25?scenario=./a\nb\x1b[31m.yaml"], ()),
        (["local", "local"], ("local", 2)),
        (["virtual:s25", " virtual:s25?target=cpu"], ("virtual-s25",)),
        (["s25@R3X", "tabs11@R3X"], ("tabs11@R3X", "s25@R3X")),
        (["s25@x@y"], ("s25@x@y",)),
    ],
)
def test_a_forecast_refuses_what_the_run_would_refuse_before_it_connects(
    addresses: list[str], reason: tuple[object, ...], layout: Layout
) -> None:
    with raising(UserError, *reason):
        forecast(QUICKSTART, parse_addresses(addresses), layout=layout)


def test_a_scenario_of_a_forecast_is_read(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("schema_version: 1\nname: mine\ntitle: x\nlink_mb_per_s: 1.0e-300\n")
    with raising(SpecError, "mine.yaml:4: link_mb_per_s"):
        forecast(QUICKSTART, parse_addresses([f"virtual:s25?scenario={tmp_path / 'mine.yaml'}"]), layout=layout)


def test_a_forecast_names_the_room_that_is_missing(layout: Layout) -> None:
    write_recipe_bundle(QUICKSTART, layout)
    (one,) = forecast(QUICKSTART, parse_addresses(["virtual:s25?data_mb=1"]), layout=layout)
    says(one.missing[0], "/data", 1)
    (one,) = forecast(QUICKSTART, parse_addresses(["virtual:s25?data_mb=60000"]), layout=layout)
    assert one.missing == ()


def test_a_forecast_names_the_programs_that_a_virtual_device_lacks(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quadbench.host._SYSTEM_FOLDERS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    (one,) = forecast(QUICKSTART, parse_addresses(["virtual:s25"]), layout=layout)
    says(one.missing[0], "virtual:s25", "adb", "PATH")


def test_a_dry_run_of_a_phone_for_which_nothing_is_there_gives_no_bytes(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "quickstart", "--devices", "s25", "--dry-run", "--results", str(layout.root)]) == 0
    says(capsys.readouterr().out.splitlines())
