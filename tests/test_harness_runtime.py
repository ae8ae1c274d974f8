"""The settings of the harness's runtime on tiny graphs: threads, arenas, adapters read ahead, budgets, and memory by region."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from support.sentences import says

from quadbench.compile.repacking import BLOCK_BYTES, MOST_BYTES
from quadbench.harness.events import BLOCK_END_METRICS

pytest.importorskip("onnx")

from support.harness_launch import launch
from support.harness_model import as_floats, draw_adapter
from support.harness_scene import (
    ADAPTERS,
    ITEMS,
    Plan,
    assert_same_image,
    blend,
    merged_at_load_plan,
    painted,
    patched_plan,
    per_graph_plan,
    pixels,
    shared_plan,
)


@pytest.mark.parametrize("runtime", [{"arena": "session"}, {"arena": "shared"}, {"thread_pool": "session"}, {"cores": [0]}])
def test_memory_and_threads_change_no_image(harness: Path, plan: Plan, tmp_path: Path, runtime: dict[str, Any]) -> None:
    plan["runtime"] |= runtime
    assert launch(harness, plan).exit_code == 0
    lora = as_floats(draw_adapter(ADAPTERS["restyle"], "int16"))
    assert_same_image(tmp_path / "images/restyle/000.png", painted("restyle", 0, lora))


def test_a_core_that_is_not_there_is_named(harness: Path, plan: Plan) -> None:
    plan["runtime"]["cores"] = [0, 1023]
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    says(heard.error(), "runtime.cores", 1023, "Invalid argument")


def test_the_next_adapter_is_read_while_a_task_runs(harness: Path, plan: Plan, tmp_path: Path) -> None:
    plan["runtime"]["preload"] = "next"
    plan["sequence"] = [{"task": task, "warmup": 0, "iterations": 1} for task in ("restyle", "remove-object", "restyle")]
    heard = launch(harness, plan)
    loads = heard.samples("adapter_load_ns")
    assert [event["labels"]["state"] for event in loads] == ["cold", "preloaded", "resident"]
    assert [event["task"] for event in heard.samples("adapter_preload_ns")] == ["remove-object"]
    lora = as_floats(draw_adapter(ADAPTERS["remove-object"], "int16"))
    assert_same_image(tmp_path / "images/remove-object/000.png", painted("remove-object", 0, lora))


def test_a_cache_for_one_adapter_has_no_room_to_preload_another(harness: Path, plan: Plan) -> None:
    plan["runtime"] |= {"preload": "next", "adapter_cache_bytes": 1}
    plan["sequence"] = [{"task": task, "warmup": 0, "iterations": 1} for task in ("restyle", "remove-object", "restyle")]
    loads = launch(harness, plan).samples("adapter_load_ns")
    assert [event["labels"]["state"] for event in loads] == ["cold", "cold", "warm"]


def test_all_adapters_can_be_read_before_the_first_task(harness: Path, plan: Plan) -> None:
    plan["runtime"]["preload"] = "all"
    heard = launch(harness, plan)
    assert [event["labels"]["state"] for event in heard.samples("adapter_load_ns")] == ["resident", "resident"]
    assert {event["task"] for event in heard.samples("adapter_preload_ns")} == set(ADAPTERS)
    (bytes_held,) = {event["value"] for event in heard.samples("adapter_cache_bytes")}
    assert bytes_held >= 2 * sum(tensor.nbytes for tensor in draw_adapter(ADAPTERS["restyle"], "int16").values())


def test_an_adapter_of_two_tasks_is_read_once(harness: Path, plan: Plan) -> None:
    plan["runtime"]["preload"] = "all"
    plan["tasks"]["again"] = plan["tasks"]["restyle"]
    plan["sequence"] = [{"task": task, "warmup": 0, "iterations": 1} for task in ("restyle", "again", "remove-object")]
    heard = launch(harness, plan)
    assert [event["labels"]["adapter"] for event in heard.samples("adapter_preload_ns")] == ["restyle", "remove-object"]
    assert [event["labels"]["state"] for event in heard.samples("adapter_load_ns")] == ["resident"] * 3


def test_a_preloaded_adapter_that_does_not_fit_is_an_error_of_its_task(harness: Path, plan: Plan) -> None:
    plan["runtime"]["preload"] = "next"
    plan["mixes"] = {"both": {"restyle": 1.0, "remove-object": 0.5}}
    plan["tasks"]["remove-object"]["adapter"] = "both"
    plan["sequence"] = [{"task": task, "warmup": 0, "iterations": 1} for task in ("restyle", "remove-object")]
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    says(heard.error(), "both")
    assert len(heard.samples("end_to_end_ns", task="restyle")) == 1


def test_graphs_beyond_the_memory_budget_go_and_come_again(harness: Path, plan: Plan, tmp_path: Path) -> None:
    plan["runtime"]["memory_budget_bytes"] = 1
    heard = launch(harness, plan)
    assert heard.exit_code == 0
    reloads = heard.samples("reload_ns", task="restyle", iteration=1, is_warmup=False)
    assert [event["component"] for event in reloads] == ["text_encoder", "vae_encoder", "vae_decoder"]
    (end_to_end,) = heard.samples("end_to_end_ns", task="restyle", iteration=1, is_warmup=False)
    assert sum(event["value"] for event in reloads) < end_to_end["value"]
    lora = as_floats(draw_adapter(ADAPTERS["restyle"], "int16"))
    assert_same_image(tmp_path / "images/restyle/000.png", painted("restyle", 0, lora))


@pytest.mark.parametrize("variant", ["resident", "context-shared"])
def test_resident_graphs_are_all_loaded_before_the_first_task(harness: Path, assets: Path, tmp_path: Path, variant: str) -> None:
    plan = per_graph_plan(assets, tmp_path) | {"variant": variant}
    plan["sequence"] = plan["sequence"] * 2
    heard = launch(harness, plan)
    assert [event["labels"]["unet"] for event in heard.samples("session_load_ns", component="unet")] == sorted(ADAPTERS)
    assert not heard.samples("session_load_ns", task="restyle")
    assert len(heard.samples("switch_ns")) == 4
    lora = as_floats(draw_adapter(ADAPTERS["restyle"], "int16"))
    assert_same_image(tmp_path / "images/restyle/000.png", painted("restyle", 0, lora))


def test_a_graph_is_made_from_another_and_a_patch_at_each_switch(harness: Path, assets: Path, tmp_path: Path) -> None:
    plan = patched_plan(assets, tmp_path)
    plan["sequence"] = plan["sequence"] * 2
    heard = launch(harness, plan)
    assert [event["task"] for event in heard.samples("session_load_ns", component="unet")] == list(ADAPTERS) * 2
    patched = heard.samples("patch_ns")
    assert [event["task"] for event in patched] == ["remove-object"] * 2
    switches = heard.samples("switch_ns", task="remove-object")
    assert all(0 < patch["value"] < switch["value"] for patch, switch in zip(patched, switches, strict=True))
    for task, seed in ADAPTERS.items():
        lora = as_floats(draw_adapter(seed, "int16"))
        assert_same_image(tmp_path / f"images/{task}/000.png", painted(task, 0, lora))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bytes": "0"}, "'0' bytes"),
        ({"bytes": "-5"}, "'-5' bytes"),
        ({"bytes": str(2**60)}, str(2**60)),
        ({"bytes": "1"}, "stream 0000"),
        ({"blocks": 2}, "'shifts'"),
        ({"stream": b"no zlib"}, "stream 0000"),
        ({"stream": zlib.compress(b"too short")}, "stream 0000"),
        ({"bytes": str(2**24 + 1), "stream": zlib.compress(bytes(2**24))}, str(2**24)),
    ],
)
def test_a_damaged_patch_is_refused(harness: Path, assets: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    plan = patched_plan(assets, tmp_path)
    plan["verify"] = False
    size = (assets / "remove-object.onnx").stat().st_size
    stream = changes.get("stream", zlib.compress(bytes(size)))
    said_size = changes.get("bytes", str(size))
    blocks = -(-int(said_size) // BLOCK_BYTES) if 0 < int(said_size) < MOST_BYTES else 1
    tensors = {"0000": np.frombuffer(stream, np.int8), "shifts": np.zeros(changes.get("blocks", blocks), np.int32)}
    save_file(tensors, tmp_path / "patch.safetensors", {"bytes": said_size})
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    says(heard.error(), said)


@pytest.mark.parametrize("is_composited", [True, False])
def test_an_inpainted_picture_is_composited_where_the_plan_names_a_blend_mask(
    harness: Path, assets: Path, tmp_path: Path, is_composited: bool
) -> None:
    plan = shared_plan(assets, tmp_path)
    plan["sequence"] = [{"task": "remove-object", "warmup": 0, "iterations": ITEMS}]
    if not is_composited:
        for item in plan["tasks"]["remove-object"]["items"]:
            item["blend"] = None
    launch(harness, plan)
    lora = as_floats(draw_adapter(ADAPTERS["remove-object"], "int16"))
    for i in range(ITEMS):
        expected = painted("remove-object", i, lora, is_composited=is_composited)
        assert_same_image(tmp_path / f"images/remove-object/{i:03}.png", expected)
        found, kept = np.asarray(Image.open(tmp_path / f"images/remove-object/{i:03}.png")), np.asarray(blend(i)) == 0
        assert np.array_equal(found[kept], pixels(i)[kept]) == is_composited


def test_adapters_are_merged_into_the_weights_at_each_switch(harness: Path, assets: Path, tmp_path: Path) -> None:
    plan = merged_at_load_plan(assets, tmp_path)
    plan["sequence"] = [
        {"task": task, "warmup": 0, "iterations": 1} for task in ("restyle", "plain", "remove-object", "restyle", "restyle")
    ]
    heard = launch(harness, plan)
    loads = heard.samples("session_load_ns", component="unet")
    assert [(event.get("task"), event["labels"]["unet"]) for event in loads] == [
        (None, "merge"),
        *((task, "base") for task in ("restyle", "plain", "remove-object", "restyle")),
    ]
    assert [event["labels"]["state"] for event in heard.samples("adapter_load_ns")] == ["cold", "cold", "resident"]
    assert [event["task"] for event in heard.samples("adapter_merge_ns")] == ["restyle", "remove-object", "restyle"]
    for task in ("restyle", "remove-object", "plain"):
        lora = as_floats(draw_adapter(ADAPTERS[task], "int16")) if task in ADAPTERS else None
        assert_same_image(tmp_path / f"images/{task}/000.png", painted(task, 0, lora))


def test_a_graph_that_adds_to_other_weights_is_refused(harness: Path, assets: Path, tmp_path: Path) -> None:
    plan = merged_at_load_plan(assets, tmp_path)
    plan["merge"]["weights"] = plan["adapters"]["restyle"]
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    says(heard.error(), "conv")


def test_memory_is_told_by_region_and_its_reading_can_be_left_out(harness: Path, plan: Plan) -> None:
    plan["runtime"]["memory_period_ms"] = 0
    heard = launch(harness, plan)
    assert not heard.samples("rss_bytes")
    assert [event["value"] for event in heard.samples("memory_sampling_ns")] == [0]
    parts = {metric: heard.samples(metric, task="plain") for metric in BLOCK_END_METRICS}
    assert {len(events) for events in parts.values()} == {1}
    assert parts["rss_anonymous_bytes"][0]["value"] > 0
    assert parts["rss_libraries_bytes"][0]["value"] > 0
