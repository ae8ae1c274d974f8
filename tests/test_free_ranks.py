"""LoRA inputs of any rank up to the bundle's: the harness gives each adapter its own rank, and paints the same images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from support.sentences import says

onnx = pytest.importorskip("onnx")

from support.harness_launch import launch  # noqa: E402
from support.harness_model import RANK, as_floats, draw_adapter  # noqa: E402
from support.harness_scene import ADAPTERS, KINDS, MADE_FOR, Plan, assert_same_image, painted, shared_plan  # noqa: E402

from quadbench.compile.lora_branches import ease_compiled_branches  # noqa: E402

Tensors = dict[str, NDArray[Any]]


@pytest.fixture(params=["int16", "int8", "float32"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def free_plan(assets: Path, tmp_path: Path, dtype: str) -> Plan:
    """Return a plan whose U-Net takes adapters of any rank. The assets' own U-Net stays as it is."""
    plan = shared_plan(assets, tmp_path, dtype=dtype, variant="float" if dtype == "float32" else "shared")
    path = tmp_path / "unet.onnx"
    path.write_bytes((assets / f"unet-{dtype}.onnx").read_bytes())
    without_identities(path)
    ease_compiled_branches(path)
    ranks = {dim.dim_param for value in onnx.load(path).graph.input for dim in value.type.tensor_type.shape.dim} - {""}
    assert ranks == {f"lora.{site}.rank<={RANK}" for site in ("conv", "proj")}
    plan["unets"]["base"] = {"path": str(path)}
    return plan


def without_identities(path: Path) -> None:
    """Have the readers of float LoRA inputs read them directly, as in a graph that ONNX Runtime has optimized."""
    model = onnx.load(path)
    kept = [node for node in model.graph.node if node.op_type != "Identity"]
    inputs = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Identity"}
    for node in kept:
        for index, name in enumerate(node.input):
            node.input[index] = inputs.get(name, name)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.save(model, path)


def give(plan: Plan, folder: Path, name: str, tensors: Tensors) -> None:
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / name, metadata=MADE_FOR)
    plan["adapters"][name] = {"path": str(folder / name)}


def first_rank(adapter: Tensors, site: str = "lora.conv") -> Tensors:
    return {f"{site}.down": adapter[f"{site}.down"][:1], f"{site}.up": adapter[f"{site}.up"][:, :1]}


def test_adapters_and_tasks_without_one_give_the_images_of_padded_inputs(
    harness: Path, free_plan: Plan, tmp_path: Path, dtype: str
) -> None:
    free_plan["sequence"] = [{"task": task, "warmup": 0, "iterations": 1} for task in (*KINDS, "restyle", "plain")]
    assert launch(harness, free_plan).exit_code == 0
    for task in KINDS:
        lora = as_floats(draw_adapter(ADAPTERS[task], dtype)) if task in ADAPTERS else None
        assert_same_image(tmp_path / f"images/{task}/000.png", painted(task, 0, lora))


def test_an_adapter_takes_the_memory_of_its_own_rank_and_sites(
    harness: Path, free_plan: Plan, tmp_path: Path, dtype: str
) -> None:
    full = draw_adapter(ADAPTERS["restyle"], dtype)
    own = first_rank(full)
    give(free_plan, tmp_path, "narrow", own)
    free_plan["tasks"]["restyle"]["adapter"] = "narrow"
    free_plan["sequence"] = [{"task": task, "warmup": 0, "iterations": 1} for task in ("plain", "restyle")]
    heard = launch(harness, free_plan)
    padded = {name: np.zeros_like(tensor) for name, tensor in full.items()}
    padded["lora.conv.down"][:1], padded["lora.conv.up"][:, :1] = own.values()
    assert_same_image(tmp_path / "images/restyle/000.png", painted("restyle", 0, as_floats(padded)))
    blocks_of_64 = sum(-(-tensor.nbytes // 64) * 64 for tensor in own.values())
    assert [event["value"] for event in heard.samples("adapter_cache_bytes")] == [0, blocks_of_64]


def test_the_parts_of_a_mix_lie_beside_each_other(harness: Path, free_plan: Plan, tmp_path: Path, dtype: str) -> None:
    full = draw_adapter(ADAPTERS["restyle"], dtype)
    back = {name: full[name] for name in full if "proj" in name} | {
        "lora.conv.down": full["lora.conv.down"][1:],
        "lora.conv.up": full["lora.conv.up"][:, 1:],
    }
    give(free_plan, tmp_path, "back", back)
    give(free_plan, tmp_path, "front", first_rank(full))
    free_plan["mixes"] = {"both": {"back": 1.0, "front": 1.0}}
    free_plan["tasks"]["restyle"]["adapter"] = "both"
    free_plan["sequence"] = [{"task": "restyle", "warmup": 0, "iterations": 1}]
    assert launch(harness, free_plan).exit_code == 0
    assert_same_image(tmp_path / "images/restyle/000.png", painted("restyle", 0, as_floats(full)))


@pytest.mark.parametrize("dtype", ["int16"])
def test_more_ranks_than_the_bundle_has_are_refused(harness: Path, free_plan: Plan) -> None:
    free_plan["mixes"] = {"both": {"restyle": 1.0, "remove-object": 0.5}}
    free_plan["tasks"]["restyle"]["adapter"] = "both"
    heard = launch(harness, free_plan)
    assert heard.exit_code == 2
    says(heard.error(), "both", 2 * RANK, "lora.conv.down", RANK)


@pytest.mark.parametrize("dtype", ["int16"])
@pytest.mark.parametrize(
    "name", ["rank", ".rank<=", "s.rank<=0", "s.rank<=-1", "s.rank<=2x", "s.rank<=99999999999999999999", "s.rank<=65537"]
)
def test_another_unknown_size_is_refused(harness: Path, free_plan: Plan, name: str) -> None:
    path = Path(free_plan["unets"]["base"]["path"])
    model = onnx.load(path)
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = name
    onnx.save(model, path)
    heard = launch(harness, free_plan)
    assert heard.exit_code == 2
    says(heard.error(), "lora.conv.down", -1, "static shape")
