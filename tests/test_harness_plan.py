"""The harness gets exactly the plan that docs/design.md describes, for each variant."""

import json
from dataclasses import replace
from typing import Any

from support.scripted_harness import TASKS, World, launch_of

from quadbench.artifacts import LaunchPlan, Variant
from quadbench.harness.installation import XNNPACK, ExecutionProvider, execution_provider_of, harness_plan
from quadbench.recipe import Runtime
from quadbench.target.targets import QnnTarget


def plan_of(world: World, launch: LaunchPlan, execution_provider: ExecutionProvider | None = None) -> dict[str, Any]:
    installation = world.installation("0" * 64, execution_provider=execution_provider)
    plan = harness_plan(installation, launch, runtime=Runtime(), images="/x/images")
    return json.loads(json.dumps(plan))  # type: ignore[no-any-return]


def entry(world: World, path: str) -> dict[str, str]:
    file = next(f.file for f in (*world.graphs, *world.adapters) if f.file.path == path)
    return {"path": world.objects[file.sha256], "sha256": file.sha256}


def test_the_shared_plan_has_one_unet_and_integer_adapters(world: World) -> None:
    plan = plan_of(world, launch_of())
    assert list(plan) == [
        "schema_version",
        "root",
        "variant",
        "runtime",
        "components",
        "unets",
        "adapters",
        "mixes",
        "base",
        "tasks",
        "sequence",
        "images",
    ]
    assert plan["runtime"] == {
        "library": world.objects[world.runtime],
        "intra_op_threads": 2,
        "cores": [],
        "thread_pool": "shared",
        "arena": "none",
        "preload": "none",
        "adapter_cache_bytes": 512 * 2**20,
        "memory_budget_bytes": None,
    }
    assert plan["unets"] == {"base": entry(world, "shared/unet.onnx")}
    assert plan["adapters"] == {task: entry(world, f"shared/{task}.safetensors") for task in TASKS}
    assert plan["base"] == {"graph": world.bundle.base.graph, "profile": world.bundle.base.profile}
    assert plan["sequence"] == [{"task": task, "warmup": 1, "iterations": 11} for task in TASKS]


def test_a_patched_plan_has_the_base_for_every_task_and_a_patch_for_each_other(world: World) -> None:
    plan, (base, other) = plan_of(world, launch_of(Variant.PATCHED)), TASKS
    assert plan["unets"] == dict.fromkeys(TASKS, entry(world, f"per-graph/{base}/unet.onnx"))
    (patch,) = (graph.patch for graph in world.graphs if graph.patch)
    assert plan["patches"] == {other: {"path": world.objects[patch.sha256], "sha256": patch.sha256}}
    assert {name: task["unet"] for name, task in plan["tasks"].items()} == {name: name for name in TASKS}
    assert "patches" not in plan_of(world, launch_of(Variant.CONTEXT_SHARED))


def test_only_quantized_graphs_run_on_another_execution_provider(world: World) -> None:
    variants = [variant for variant in Variant if variant is not Variant.MERGED_AT_LOAD]  # of which the bundle has no graph
    plans = [plan_of(world, launch_of(variant), execution_provider=XNNPACK) for variant in variants]
    expected = {"name": "XNNPACK", "options": {"intra_op_num_threads": "2"}}
    assert [plan["runtime"].get("execution_provider") for plan in plans] == [
        expected if variant.is_quantized else None for variant in variants
    ]


def test_a_device_without_a_kit_has_the_npu_by_emulation(world: World) -> None:
    emulator = execution_provider_of(QnnTarget(backend="qnn", htp_arch="v79", soc_model=69), None)
    plans = [plan_of(world, launch_of(variant), execution_provider=emulator) for variant in (Variant.SHARED, Variant.FLOAT)]
    assert [plan["runtime"].get("execution_provider") for plan in plans] == [
        {
            "name": "QNNExecutionProvider",
            "options": {
                "backend_path": "/vendor/onnxruntime_qnn/libQnnHtp.so",
                "htp_arch": "79",
                "soc_model": "69",
                "htp_performance_mode": "default",
            },
            "library": "/vendor/onnxruntime_qnn/libonnxruntime_providers_qnn.so",
        },
        None,
    ]


def test_the_per_graph_plan_has_a_unet_for_each_task_and_shares_the_rest(world: World) -> None:
    plan = plan_of(world, launch_of(Variant.PER_GRAPH))
    assert plan["unets"] == {task: entry(world, f"per-graph/{task}/unet.onnx") for task in TASKS}
    assert plan["adapters"] == {}
    assert plan["base"] is None
    assert plan["components"] == plan_of(world, launch_of())["components"]
    tasks: dict[str, dict[str, object]] = plan["tasks"]  # type: ignore[assignment]
    assert {name: (task["unet"], task["adapter"]) for name, task in tasks.items()} == {name: (name, None) for name in TASKS}


def test_the_float_plan_takes_graphs_and_adapters_from_the_bundle(world: World) -> None:
    plan = plan_of(world, launch_of(Variant.FLOAT))
    assert plan["unets"] == {"base": entry(world, "float/unet.onnx")}
    assert plan["adapters"] == {task: entry(world, f"float/{task}.safetensors") for task in TASKS}
    components: dict[str, object] = plan["components"]  # type: ignore[assignment]
    assert components["encoders"] == {"text_encoder": entry(world, "float/text_encoder.onnx")}


def test_a_task_in_the_plan_names_its_files_on_the_device(world: World) -> None:
    task = world.bundle.tasks[1]
    items = task.items
    plan = plan_of(world, launch_of(tasks=("remove-object",)))
    assert plan["tasks"] == {
        "remove-object": {
            "kind": "inpaint",
            "unet": "base",
            "adapter": "remove-object",
            "guidance": 2.0,
            "table": world.objects[task.table.sha256],
            "tensors": world.objects[task.tensors.sha256],
            "items": [
                {
                    "name": item.name,
                    "image": world.objects[item.image.sha256] if item.image else None,
                    "mask": world.objects[item.mask.sha256] if item.mask else None,
                    "blend": world.objects[item.blend.sha256] if item.blend else None,
                    "tokens": {"input_ids": [1, 2]},
                    "negative_tokens": {"input_ids": [1, 0]},
                }
                for item in items
            ],
        }
    }


def test_the_plan_names_mixes_with_the_factors_that_make_them_of_the_files(world: World) -> None:
    files = tuple(replace(file, weight=2.0) if file.name == "restyle" else file for file in world.adapters)
    first, second = world.bundle.tasks
    mix = {"remove-object": 1.0, "restyle": -0.5}
    tasks = (first, replace(second, adapter="remove-object+restyle:-0.5", mix=mix))
    world.bundle = replace(world.bundle, adapters=files, tasks=tasks)
    for variant in (Variant.SHARED, Variant.FLOAT):
        plan = plan_of(world, launch_of(variant))
        assert plan["adapters"].keys() == {"remove-object", "restyle"}
        assert plan["mixes"] == {
            "restyle": {"restyle": 0.5},
            "remove-object+restyle:-0.5": {"remove-object": 1.0, "restyle": -0.25},
        }
        assert [task["adapter"] for task in plan["tasks"].values()] == ["restyle", "remove-object+restyle:-0.5"]
    assert plan_of(world, launch_of(Variant.PER_GRAPH))["mixes"] == {}
