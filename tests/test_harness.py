"""The native harness on tiny graphs: what it paints against NumPy, what it writes, and where it is found."""

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.sentences import raising, says

from quadbench.errors import BuildError, MissingDependencyError, UserError
from quadbench.harness.events import BLOCK_END_METRICS
from quadbench.harness.program import OVERRIDE, PROGRAM, ensure_harness, harness_sources
from quadbench.kits.elf import read_elf

pytest.importorskip("onnx")

from support.harness_launch import endless, launch
from support.harness_model import as_floats, draw_adapter
from support.harness_scene import ADAPTERS, ITEMS, KINDS, MADE_FOR, Plan, assert_same_image, painted, per_graph_plan, shared_plan

MAY_BE_ZERO = {"residual_ns", "dma_buf_bytes", *BLOCK_END_METRICS}


def test_images_are_those_of_the_same_loop_in_numpy(harness: Path, plan: Plan, tmp_path: Path) -> None:
    plan["sequence"] = [{"task": task, "warmup": 0, "iterations": ITEMS} for task in KINDS]
    assert launch(harness, plan).exit_code == 0
    for task in KINDS:
        lora = as_floats(draw_adapter(ADAPTERS[task], "int16")) if task in ADAPTERS else None
        for item in range(ITEMS):
            assert_same_image(tmp_path / f"images/{task}/{item:03}.png", painted(task, item, lora))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_lora_inputs_may_be_float_or_int8(harness: Path, assets: Path, tmp_path: Path, dtype: str) -> None:
    plan = shared_plan(assets, tmp_path, dtype=dtype, variant="float" if dtype == "float32" else "shared")
    assert launch(harness, plan).exit_code == 0
    lora = as_floats(draw_adapter(ADAPTERS["restyle"], dtype))
    assert_same_image(tmp_path / "images/restyle/000.png", painted("restyle", 0, lora))


def test_an_adapter_of_smaller_rank_and_fewer_sites_is_padded_with_zeros(harness: Path, plan: Plan, tmp_path: Path) -> None:
    full = draw_adapter(ADAPTERS["restyle"], "int16")
    own = {"lora.conv.down": full["lora.conv.down"][:1], "lora.conv.up": full["lora.conv.up"][:, :1]}
    path = tmp_path / "narrow.safetensors"
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in own.items()}, path, metadata=MADE_FOR)
    plan["adapters"]["restyle"] = {"path": str(path)}
    plan["sequence"] = [{"task": task, "warmup": 0, "iterations": 1} for task in ("remove-object", "restyle")]
    assert launch(harness, plan).exit_code == 0
    padded = {name: np.zeros_like(tensor) for name, tensor in full.items()}
    padded["lora.conv.down"][:1], padded["lora.conv.up"][:, :1] = own.values()
    assert_same_image(tmp_path / "images/restyle/000.png", painted("restyle", 0, as_floats(padded)))


@pytest.mark.parametrize("dtype", ["int16", "int8", "float32"])
def test_a_mix_is_its_files_beside_each_other_each_with_its_factor_on_up(
    harness: Path, assets: Path, tmp_path: Path, dtype: str
) -> None:
    full = draw_adapter(ADAPTERS["restyle"], dtype)
    rank = full["lora.conv.down"].shape[0]
    halves = {"front": slice(0, 1), "back": slice(1, rank)}
    plan = shared_plan(assets, tmp_path, dtype=dtype, variant="float" if dtype == "float32" else "shared")
    for name, ranks in halves.items():
        own = {"lora.conv.down": full["lora.conv.down"][ranks], "lora.conv.up": full["lora.conv.up"][:, ranks]}
        save_file({key: np.ascontiguousarray(value) for key, value in own.items()}, tmp_path / name, metadata=MADE_FOR)
        plan["adapters"][name] = {"path": str(tmp_path / name)}
    plan["mixes"] = {"both": {"back": -0.3, "front": 1.0}}  # in the order of their names
    plan["tasks"]["restyle"]["adapter"] = "both"
    plan["sequence"] = [{"task": "restyle", "warmup": 0, "iterations": 1}]
    heard = launch(harness, plan)
    assert [event["labels"]["adapter"] for event in heard.samples("adapter_load_ns")] == ["both"]
    scaled = (full["lora.conv.up"][:, 1:] * (np.float32(-0.3) if dtype == "float32" else -0.3)).astype(np.float64)
    scaled = scaled if dtype == "float32" else np.rint(scaled)
    mix = {name: np.zeros_like(tensor) for name, tensor in full.items()}
    mix["lora.conv.down"][:] = np.concatenate([full["lora.conv.down"][1:], full["lora.conv.down"][:1]])
    mix["lora.conv.up"][:] = np.concatenate([scaled, full["lora.conv.up"][:, :1]], axis=1)
    assert_same_image(tmp_path / "images/restyle/000.png", painted("restyle", 0, as_floats(mix)))


def test_a_mix_of_more_ranks_than_the_graph_has_is_refused(harness: Path, plan: Plan) -> None:
    plan["mixes"] = {"both": {"restyle": 1.0, "remove-object": 0.5}}
    plan["tasks"]["restyle"]["adapter"] = "both"
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    says(heard.error(), "both", 4, "lora.conv.down", 2)


def test_events_are_complete_and_in_order(harness: Path, plan: Plan, tmp_path: Path) -> None:
    heard = launch(harness, plan)
    header, footer = heard.events[0], heard.events[-1]
    assert (header["event"], header["schema_version"], header["variant"]) == ("header", 1, "shared")
    assert header["plan_sha256"] == hashlib.sha256((tmp_path / "plan.json").read_bytes()).hexdigest()
    assert header["build_type"] == "Release"
    assert (footer["event"], footer["status"]) == ("footer", "OK")
    assert footer["samples"] == sum(event["event"] == "sample" for event in heard.events)
    assert [event["component"] for event in heard.samples("session_load_ns")] == [
        "text_encoder",
        "vae_decoder",
        "vae_encoder",
        "unet",
    ]
    assert all(event["value"] > 0 for event in heard.events if event["event"] == "sample" and event["metric"] not in MAY_BE_ZERO)


def test_the_libraries_are_those_that_the_plan_names_with_the_build_ids_of_their_files(harness: Path, plan: Plan) -> None:
    loaded = {event["path"]: event["build_id"] for event in launch(harness, plan).events if event["event"] == "library"}
    runtime = plan["runtime"]["library"]
    assert len(loaded[runtime]) == 40
    assert loaded[runtime] == read_elf(Path(runtime), name="runtime", fault=UserError).build_id
    assert all(path.startswith("/") for path in loaded)
    assert any("libc.so" in path for path in loaded)


def test_libraries_are_told_also_where_a_graph_cannot_be_loaded(harness: Path, plan: Plan) -> None:
    plan["components"]["vae_decoder"] = {"path": plan["tasks"]["restyle"]["table"]}
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    assert plan["runtime"]["library"] in {event.get("path") for event in heard.events}


def test_every_image_has_all_its_times_and_their_sum_is_the_end_to_end_time(harness: Path, plan: Plan) -> None:
    heard = launch(harness, plan)
    for iteration in range(3):
        where = {"task": "restyle", "iteration": iteration, "is_warmup": False, "item": f"{iteration % ITEMS:03}"}
        parts = [heard.samples(metric, **where) for metric in ("text_encoder_ns", "vae_encoder_ns", "vae_decoder_ns")]
        unet = heard.samples("unet_ns", **where)
        assert [event["step"] for event in unet] == [0, 1, 2]
        assert {event["labels"]["runs"] for event in unet} == {"2"}
        (end_to_end,) = heard.samples("end_to_end_ns", **where)
        (residual,) = heard.samples("residual_ns", **where)
        components = sum(event["value"] for event in [*(part for (part,) in parts), *unet])
        assert residual["value"] == end_to_end["value"] - components >= 0
    assert len(heard.samples("end_to_end_ns", task="restyle", is_warmup=True)) == 1
    assert {event["labels"]["runs"] for event in heard.samples("unet_ns", task="remove-object")} == {"1"}
    assert not heard.samples("vae_encoder_ns", task="plain")


def test_images_are_written_once_with_their_sha256(harness: Path, plan: Plan) -> None:
    plan["sequence"][0]["iterations"] = 5
    events = [event for event in launch(harness, plan).events if event["event"] == "image" and event["task"] == "restyle"]
    assert [event["item"] for event in events] == ["000", "001"]
    for event in events:
        assert event["sha256"] == hashlib.sha256(Path(event["path"]).read_bytes()).hexdigest()


def test_switching_adapters_changes_the_image_without_loading_a_session(harness: Path, plan: Plan, tmp_path: Path) -> None:
    for task, adapter in (("a", "restyle"), ("b", "remove-object"), ("c", None)):
        plan["tasks"][task] = plan["tasks"]["restyle"] | {"adapter": adapter}
    plan["sequence"] = [{"task": task, "warmup": 0, "iterations": 1} for task in "abcab"]
    heard = launch(harness, plan)
    assert len(heard.samples("session_load_ns", component="unet")) == 1
    images = {(tmp_path / f"images/{task}/000.png").read_bytes() for task in "abc"}
    assert len(images) == 3
    switches = heard.samples("switch_ns")
    assert [(event["labels"]["from"], event["labels"]["to"]) for event in switches] == [
        ("none", "a"),
        ("a", "b"),
        ("b", "c"),
        ("c", "a"),
        ("a", "b"),
    ]
    loads = heard.samples("adapter_load_ns")
    assert [event["labels"]["state"] for event in loads] == ["cold", "cold", "resident", "resident"]
    assert len(heard.samples("first_unet_ns")) == 5


def test_a_full_cache_evicts_the_least_recently_used_adapter(harness: Path, plan: Plan) -> None:
    plan["runtime"]["adapter_cache_bytes"] = 1  # the chosen one stays in any case
    plan["sequence"] = [{"task": task, "warmup": 0, "iterations": 1} for task in ("restyle", "remove-object", "restyle")]
    loads = launch(harness, plan).samples("adapter_load_ns")
    assert [event["labels"]["state"] for event in loads] == ["cold", "cold", "warm"]


def test_a_block_of_the_same_task_is_no_switch(harness: Path, plan: Plan) -> None:
    plan["sequence"] = [plan["sequence"][0]] * 2
    heard = launch(harness, plan)
    assert len(heard.samples("switch_ns")) == 1
    assert len(heard.samples("peak_rss_bytes", task="restyle")) == 2


def test_per_graph_loads_a_session_at_every_switch(harness: Path, assets: Path, tmp_path: Path) -> None:
    plan = per_graph_plan(assets, tmp_path)
    heard = launch(harness, plan)
    assert [event["labels"]["unet"] for event in heard.samples("session_load_ns", component="unet")] == list(ADAPTERS)
    for load, switch in zip(heard.samples("session_load_ns", component="unet"), heard.samples("switch_ns"), strict=True):
        assert switch["value"] > load["value"]
    for task, seed in ADAPTERS.items():
        assert_same_image(tmp_path / f"images/{task}/000.png", painted(task, 0, as_floats(draw_adapter(seed, "int16"))))


def test_memory_is_reported_for_each_block_and_between_images(harness: Path, plan: Plan) -> None:
    heard = launch(harness, plan)
    assert heard.events[0]["peak_reset"] is True
    assert len(heard.samples("load_peak_rss_bytes")) == 1 + len(heard.samples("switch_ns"))
    (peak,) = heard.samples("peak_rss_bytes", task="restyle")
    assert 2**20 < peak["value"] < 2**30
    assert all(event["value"] <= 2**30 for event in heard.samples("rss_bytes"))


def test_the_runtimes_telemetry_is_off(harness: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "x" * 20_000)  # telemetry that is on complains of it
    heard = launch(harness, plan)
    assert heard.exit_code == 0
    assert "elemetry" not in heard.stderr


def test_a_killed_harness_leaves_no_footer(harness: Path, plan: Plan, tmp_path: Path) -> None:
    process, lines = endless(harness, plan, tmp_path)
    process.kill()
    rest = [json.loads(line) for line in lines if line.endswith("\n")]
    assert process.wait() == -signal.SIGKILL
    assert all(event["event"] != "footer" for event in rest)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_harness_says_so(harness: Path, plan: Plan, tmp_path: Path, number: signal.Signals) -> None:
    process, lines = endless(harness, plan, tmp_path)
    process.send_signal(number)
    error, footer = [json.loads(line) for line in lines][-2:]
    assert process.wait() == 130
    assert (error["event"], error["message"]) == ("error", "interrupted")
    assert (footer["event"], footer["status"]) == ("footer", "FAILED")


def test_a_build_is_found_by_its_variable_before_all_else(monkeypatch: pytest.MonkeyPatch, harness: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("QUADBENCH_HARNESS", str(harness))
    assert ensure_harness(tmp_path) == harness
    monkeypatch.setenv("QUADBENCH_HARNESS", str(tmp_path / "absent"))
    with raising(UserError, "QUADBENCH_HARNESS"):
        ensure_harness(tmp_path)


def test_without_a_compiler_pinned_tools_are_fetched_and_a_failure_names_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("QUADBENCH_HARNESS", raising=False)
    monkeypatch.setattr("quadbench.harness.program.find_program", lambda _: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with raising(MissingDependencyError, "ziglang==0.17.1", "cmake==4.4.5", "ninja==1.13.2", snapshot=False):
        ensure_harness(tmp_path / "build")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_interrupted_build_ends_its_compilers(tmp_path: Path) -> None:
    compiling = "sleep 300 & echo $! > pid.part; mv pid.part pid; wait"
    code = f"from quadbench.harness.program import _run; _run(['sh', '-c', {compiling!r}])"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.DEVNULL) as build:
        while not (tmp_path / "pid").exists():
            assert build.poll() is None
            time.sleep(0.05)
        build.send_signal(signal.SIGINT)
    status = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_harness_is_built_where_there_is_no_compiler(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("setpriv", "git"):
        (tools / name).symlink_to(shutil.which(name) or name)
    environment = {name: value for name, value in os.environ.items() if name not in (OVERRIDE, "CXX")} | {"PATH": str(tools)}
    command = [sys.executable, "-m", "quadbench", "harness", "build", "--results", str(tmp_path / "results")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    elf = read_elf(Path(result.stdout.strip()), name=PROGRAM, fault=BuildError)
    assert elf.machine_name == "x86_64" or platform.machine() != "x86_64"


def test_a_build_is_not_reused_with_another_header_of_the_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_fake_cmake(tmp_path)
    for name in ("make", "g++"):
        (tmp_path / name).symlink_to("/bin/true")
    monkeypatch.delenv(OVERRIDE, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    header = tmp_path / "include/onnxruntime/onnxruntime_c_api.h"
    header.parent.mkdir(parents=True)
    monkeypatch.setenv("CMAKE_PREFIX_PATH", str(tmp_path))
    builds = []
    for version in (21, 22, 21):
        header.write_text(f"#define ORT_API_VERSION {version}\n")
        builds.append(ensure_harness(tmp_path / "build"))
    assert builds[0] == builds[2] != builds[1]
    assert all(build.read_bytes().endswith(f"{header.parent}\n".encode()) for build in builds)


def test_an_installed_harness_is_taken(monkeypatch: pytest.MonkeyPatch, harness: Path, tmp_path: Path) -> None:
    monkeypatch.delenv("QUADBENCH_HARNESS", raising=False)
    (tmp_path / PROGRAM).symlink_to(harness)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ensure_harness(tmp_path / "build") == tmp_path / PROGRAM
    assert (harness_sources() / "CMakeLists.txt").is_file()


def write_fake_cmake(folder: Path) -> None:
    """A cmake whose program ends with the folder of the runtime's header that it was configured with."""
    cmake = folder / "cmake"
    cmake.write_text(f"""#!/bin/sh
case "$1" in
    -S) mkdir "$4" && cp /bin/true "$4/{PROGRAM}"
        for option; do
            case "$option" in -DONNXRUNTIME_INCLUDE_DIR=*) readlink -f "${{option#*=}}" >>"$4/{PROGRAM}" ;; esac
        done ;;
esac
""")
    cmake.chmod(0o755)
