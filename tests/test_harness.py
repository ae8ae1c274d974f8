"""The native harness on tiny graphs: what it paints against NumPy, what it writes, and what it refuses."""

import hashlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file

from quadbench.errors import MissingDependencyError, UserError
from quadbench.harness import PROGRAM, ensure_harness, harness_sources

pytest.importorskip("onnx")

from harness_model import FEATURES, PIXELS, TOKENS, Array, as_floats, draw_adapter
from harness_scene import (
    ADAPTERS,
    ITEMS,
    KINDS,
    MADE_FOR,
    MODEL,
    STEPS,
    Plan,
    painted,
    per_graph_plan,
    shared_plan,
    table,
    tensors,
    write_assets,
)

RESULTS = Path(__file__).resolve().parent.parent / "results"


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One run of the harness."""

    exit_code: int
    events: list[dict[str, Any]]
    stderr: str = field(repr=False)

    def samples(self, metric: str, **wanted: Any) -> list[dict[str, Any]]:
        found = [event for event in self.events if event["event"] == "sample" and event["metric"] == metric]
        return [event for event in found if all(event.get(key) == value for key, value in wanted.items())]

    def error(self) -> str:
        (event,) = [event for event in self.events if event["event"] == "error"]
        assert self.events[-1]["status"] == "FAILED"
        return str(event["message"])


@pytest.fixture(scope="session")
def harness() -> Path:
    return ensure_harness(RESULTS / "harness")


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs, adapters, tables, tensors and images; tests that change one write it elsewhere."""
    folder = tmp_path_factory.mktemp("assets")
    write_assets(folder)
    return folder


@pytest.fixture
def plan(assets: Path, tmp_path: Path) -> Plan:
    return shared_plan(assets, tmp_path)


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
    assert all(event["value"] > 0 for event in heard.events if event["event"] == "sample" and event["metric"] != "residual_ns")


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
    plan["runtime"]["resident_adapters"] = 1
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


def test_an_image_that_is_not_finite_fails_the_run(harness: Path, plan: Plan, tmp_path: Path) -> None:
    changed = tensors() | {"time_features": np.full((STEPS, FEATURES), np.nan, np.float32)}
    save_file(changed, tmp_path / "nan.safetensors")
    plan["tasks"]["restyle"]["tensors"] = str(tmp_path / "nan.safetensors")
    heard = launch(harness, plan)
    assert heard.exit_code == 3
    assert "came out of the U-Net in step 0" in heard.error()


Change = Callable[[Plan, Path], None]


def _lacks_tensor(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, {k: v for k, v in draw_adapter(1, "int16").items() if k != "lora.proj.up"})


def _has_extra_tensor(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, draw_adapter(1, "int16") | {"lora.other.up": np.zeros(3, np.int16)})


def _has_wrong_shape(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, draw_adapter(1, "int16") | {"lora.proj.up": np.zeros((4, 3), np.int16)})


def _has_wrong_dtype(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, draw_adapter(1, "float32"))


def _is_for_another_profile(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, draw_adapter(1, "int16"), MADE_FOR | {"base_profile": "3" * 64})


def _does_not_say_its_base(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, draw_adapter(1, "int16"), None)


def _is_truncated(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, draw_adapter(1, "int16"))
    path = Path(plan["adapters"]["restyle"]["path"])
    path.write_bytes(path.read_bytes()[:-1])
    del plan["adapters"]["restyle"]["sha256"]


def _has_other_sha256(plan: Plan, folder: Path) -> None:
    plan["unets"]["base"]["sha256"] = "0" * 64


def _names_unknown_task(plan: Plan, folder: Path) -> None:
    plan["sequence"][0]["task"] = "restile"


def _has_table_of_other_length(plan: Plan, folder: Path) -> None:
    short = table()
    short["steps"].pop()
    short["timesteps"].pop()
    (folder / "short.json").write_text(json.dumps(short))
    plan["tasks"]["restyle"]["table"] = str(folder / "short.json")


def _has_no_runtime(plan: Plan, folder: Path) -> None:
    plan["runtime"]["library"] = "/nowhere/libonnxruntime.so"


def _has_large_image(plan: Plan, folder: Path) -> None:
    Image.new("RGB", (PIXELS + 1, PIXELS)).save(folder / "large.png")
    plan["tasks"]["restyle"]["items"][0]["image"] = str(folder / "large.png")


def _has_few_tokens(plan: Plan, folder: Path) -> None:
    plan["tasks"]["restyle"]["items"][0]["input_ids"].pop()


def _has_unknown_input(plan: Plan, folder: Path) -> None:
    path = MODEL.write_unet(folder / "extra.onnx", lora="int16", extra_input="mystery")
    plan["unets"]["base"] = {"path": str(path)}


def _is_no_graph(plan: Plan, folder: Path) -> None:
    (folder / "text.onnx").write_text("not a graph")
    plan["unets"]["base"] = {"path": str(folder / "text.onnx")}


def _has_wrong_component(plan: Plan, folder: Path) -> None:
    plan["components"]["vae_encoder"] = plan["components"]["vae_decoder"]


def _has_absent_adapter(plan: Plan, folder: Path) -> None:
    plan["adapters"]["restyle"] = {"path": str(folder / "absent.safetensors")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lacks_tensor, "tensor 'lora.proj.up' is not in"),
        (_has_extra_tensor, "has a tensor 'lora.other.up' that is no input of the graph"),
        (_has_wrong_shape, "is I16 (4, 3), expected I16 (4, 2)"),
        (_has_wrong_dtype, "is F32 (2, 4, 1, 1), expected I16 (2, 4, 1, 1)"),
        (_is_for_another_profile, f"was made for another base or profile: it says base_profile {'3' * 64}, expected {'2' * 64}"),
        (_does_not_say_its_base, "was made for another base or profile: it says no base_graph"),
        (_is_truncated, "the file is cut off"),
        (_has_other_sha256, f"expected {'0' * 64}"),
        (_names_unknown_task, "sequence[0].task: unknown task 'restile'; known: plain, remove-object, restyle"),
        (_has_table_of_other_length, "has shape (3, 4), expected (2, C) for the table's 2 steps"),
        (_has_no_runtime, "cannot open '/nowhere/libonnxruntime.so'"),
        (_has_large_image, "is 17x16 with 3 channels of 8 bits, expected 16x16"),
        (_has_few_tokens, f"found {TOKENS - 1} token ids, expected the text encoder's {TOKENS}"),
        (_has_unknown_input, "unet: unknown input 'mystery' float32 (1,)"),
        (_is_no_graph, "ONNX Runtime: "),
        (_has_wrong_component, "vae_encoder: its inputs are latent, expected image alone"),
        (_has_absent_adapter, "No such file"),
    ],
)
def test_wrong_input_is_refused_before_any_image(harness: Path, plan: Plan, tmp_path: Path, change: Change, message: str) -> None:
    change(plan, tmp_path)
    heard = launch(harness, plan)
    assert heard.exit_code == 2, heard
    assert message in heard.error()
    assert heard.error() in heard.stderr
    assert not heard.samples("end_to_end_ns")


def test_an_execution_provider_that_the_runtime_lacks_is_refused(harness: Path, plan: Plan) -> None:
    plan["runtime"]["execution_provider"] = {"name": "NobodysProvider", "options": {"threads": "1"}}
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    assert "NobodysProvider" in heard.error()
    assert not heard.samples("session_load_ns")


def test_a_plugin_library_that_is_not_there_is_refused(harness: Path, plan: Plan) -> None:
    plan["runtime"]["execution_provider"] = {"name": "NobodysProvider", "library": "/nowhere/libnobody.so"}
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    assert "/nowhere/libnobody.so" in heard.error()
    assert not heard.samples("session_load_ns")


def test_a_build_is_found_by_its_variable_before_all_else(monkeypatch: pytest.MonkeyPatch, harness: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("QUADBENCH_HARNESS", str(harness))
    assert ensure_harness(tmp_path) == harness
    monkeypatch.setenv("QUADBENCH_HARNESS", str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"QUADBENCH_HARNESS is .*absent"):
        ensure_harness(tmp_path)


def test_a_missing_compiler_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QUADBENCH_HARNESS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"cmake, make, g\+\+ must be installed.*apt-get install cmake make g\+\+"):
        ensure_harness(tmp_path / "build")


def test_an_installed_harness_is_taken(monkeypatch: pytest.MonkeyPatch, harness: Path, tmp_path: Path) -> None:
    monkeypatch.delenv("QUADBENCH_HARNESS", raising=False)
    (tmp_path / PROGRAM).symlink_to(harness)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ensure_harness(tmp_path / "build") == tmp_path / PROGRAM
    assert (harness_sources() / "CMakeLists.txt").is_file()


def launch(harness: Path, plan: Plan) -> Heard:
    path = Path(plan["images"]).parent / "plan.json"
    path.write_text(json.dumps(plan))
    result = subprocess.run([harness, path], capture_output=True, text=True, check=False, timeout=60)
    return Heard(
        exit_code=result.returncode, events=[json.loads(line) for line in result.stdout.splitlines()], stderr=result.stderr
    )


def endless(harness: Path, plan: Plan, folder: Path) -> tuple[subprocess.Popen[str], Iterator[str]]:
    """A harness that has painted its first image of very many."""
    plan["sequence"] = [{"task": "restyle", "warmup": 0, "iterations": 1_000_000}]
    (folder / "plan.json").write_text(json.dumps(plan))
    process = subprocess.Popen([harness, folder / "plan.json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "end_to_end_ns" in line:
            break
    return process, _closing(process)


def _closing(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    with process.stdout:
        yield from process.stdout


def _adapter(plan: Plan, folder: Path, content: dict[str, NDArray[Any]], made_for: dict[str, str] | None = MADE_FOR) -> None:
    path = folder / "adapter.safetensors"
    save_file(content, path, metadata=made_for)
    plan["adapters"]["restyle"] = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def assert_same_image(path: Path, expected: Array) -> None:
    """Equal after rounding, but where NumPy's own value is within 0.01 of the middle between two integers."""
    found = np.asarray(Image.open(path)).astype(np.float32)
    assert np.ptp(found) > 0
    assert np.abs(found - expected).max() <= 0.51
