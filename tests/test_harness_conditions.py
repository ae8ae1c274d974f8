"""The U-Net's conditions in the harness: the same values paint the same picture, whoever gives them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402
from support.harness_launch import launch  # noqa: E402
from support.harness_model import TOKENS, Array  # noqa: E402
from support.harness_scene import (  # noqa: E402
    ITEMS,
    MODEL,
    STEPS,
    Plan,
    prompt,
    tensors,
)

TASK = "restyle"  # its guidance is 3
NEGATIVE = [0] * TOKENS


def picture(harness: Path, plan: Plan, folder: Path, given: Mapping[str, Array], **item: object) -> bytes:
    """Return the file of the picture that the harness paints with a task's tensors and an item's changed keys."""
    save_file({name: np.ascontiguousarray(value) for name, value in given.items()}, folder / "given.safetensors")
    task = plan["tasks"][TASK]
    task["tensors"] = str(folder / "given.safetensors")
    task["items"] = [own | item for own in task["items"]]
    plan["tasks"] = {TASK: task}
    plan["sequence"] = [{"task": TASK, "warmup": 0, "iterations": 1}]
    heard = launch(harness, plan)
    assert heard.exit_code == 0, heard
    return (folder / f"images/{TASK}/000.png").read_bytes()


def of_items(values: list[Array]) -> dict[str, Array]:
    """Return the text of every item as tensors: a row for the prompt, one for the negative prompt."""
    return {f"encoder_hidden_states.{i:03}": np.concatenate([values[i], values[-1]]) for i in range(ITEMS)}


def without_encoders(plan: Plan, folder: Path) -> Plan:
    return plan | {"components": plan["components"] | {"encoders": {}}, "images": str(folder / "again/images")}


def test_text_of_an_item_paints_what_an_encoders_text_paints(harness: Path, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    text = [MODEL.text(ids) for ids in (*map(prompt, range(ITEMS)), NEGATIVE)]
    given = without_encoders(plan, tmp_path) | {"tasks": {TASK: dict(plan["tasks"][TASK])}}
    encoded = picture(harness, plan, tmp_path, tensors())
    itemized = picture(harness, given, tmp_path / "again", tensors() | of_items(text), tokens={}, negative_tokens=None)
    assert itemized == encoded


def test_an_absent_negative_prompt_is_zeros(harness: Path, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    zeros = np.zeros_like(MODEL.text(NEGATIVE))
    text = [*(MODEL.text(prompt(i)) for i in range(ITEMS)), zeros]
    given = without_encoders(plan, tmp_path) | {"tasks": {TASK: dict(plan["tasks"][TASK])}}
    with_prompt = picture(harness, plan, tmp_path, tensors())
    absent = picture(harness, plan, tmp_path, tensors(), negative_tokens=None)
    assert absent != with_prompt
    assert absent == picture(harness, given, tmp_path / "again", tensors() | of_items(text), tokens={}, negative_tokens=None)


def test_one_row_of_a_task_holds_for_all_its_steps(harness: Path, plan: Plan, tmp_path: Path) -> None:
    each = tensors()
    row = each["time_features"][:1]
    own = picture(harness, plan, tmp_path, each)
    one = picture(harness, plan, tmp_path, each | {"time_features": row})
    assert one != own
    assert one == picture(harness, plan, tmp_path, each | {"time_features": np.repeat(row, STEPS, axis=0)})


def test_an_encoder_has_several_inputs_and_outputs_and_each_gets_its_tokens(harness: Path, plan: Plan, tmp_path: Path) -> None:
    """Both inputs go through the model's table; only the second one's states have the name of a condition."""
    ids = [helper.make_tensor_value_info(name, TensorProto.INT32, [1, TOKENS]) for name in ("other_ids", "own_ids")]
    width = MODEL.embedding.shape[1]
    names = ("pooled", "encoder_hidden_states")
    states = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, TOKENS, width]) for name in names]
    nodes = [helper.make_node("Gather", ["table", given.name], [name]) for given, name in zip(ids, names, strict=True)]
    weights = [onnx.numpy_helper.from_array(MODEL.embedding, "table")]
    graph = helper.make_graph(nodes, "text", ids, states, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "both.onnx")
    expected = picture(harness, plan, tmp_path, tensors())
    plan["components"]["encoders"] = {"both": {"path": str(tmp_path / "both.onnx")}}
    tokens = {"own_ids": prompt(0), "other_ids": [9] * TOKENS}
    negative = {"own_ids": NEGATIVE, "other_ids": [9] * TOKENS}
    assert picture(harness, plan, tmp_path, tensors(), tokens=tokens, negative_tokens=negative) == expected


def test_two_encoders_with_the_same_output_are_refused(harness: Path, plan: Plan) -> None:
    encoders = plan["components"]["encoders"]
    encoders["again"] = encoders["text_encoder"]
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    assert "encoder_hidden_states" in heard.error()


def test_a_plan_of_one_unnamed_encoder_is_still_read(harness: Path, plan: Plan, tmp_path: Path) -> None:
    expected = picture(harness, plan, tmp_path, tensors())
    old = json.loads(json.dumps(plan)) | {"schema_version": 2}
    old["components"]["text_encoder"] = old["components"].pop("encoders")["text_encoder"]
    for item in old["tasks"][TASK]["items"]:
        item["input_ids"], item["negative_input_ids"] = item.pop("tokens")["input_ids"], item.pop("negative_tokens")["input_ids"]
    assert launch(harness, old).exit_code == 0
    assert (tmp_path / f"images/{TASK}/000.png").read_bytes() == expected
