"""The native harness on wrong input: what it refuses before any image, and in which words."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file

pytest.importorskip("onnx")

from support.harness_launch import launch
from support.harness_model import FEATURES, PIXELS, TOKENS, WIDTH, draw_adapter
from support.harness_scene import MADE_FOR, MODEL, STEPS, Plan, table, tensors
from support.sentences import says

Change = Callable[[Plan, Path], None]


def _lacks_tensor(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, {k: v for k, v in draw_adapter(1, "int16").items() if k != "lora.proj.up"})


def _has_extra_tensor(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, draw_adapter(1, "int16") | {"lora.other.up": np.zeros(3, np.int16)})


def _has_wrong_shape(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, draw_adapter(1, "int16") | {"lora.proj.up": np.zeros((3, 2), np.int16)})


def _has_too_large_a_rank(plan: Plan, folder: Path) -> None:
    wide = {"lora.proj.down": np.zeros((3, WIDTH), np.int16), "lora.proj.up": np.zeros((4, 3), np.int16)}
    _adapter(plan, folder, draw_adapter(1, "int16") | wide)


def _has_unequal_ranks(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, draw_adapter(1, "int16") | {"lora.proj.up": np.zeros((4, 1), np.int16)})


def _has_no_tensors(plan: Plan, folder: Path) -> None:
    _adapter(plan, folder, {})


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
    plan["tasks"]["restyle"]["items"][0]["tokens"]["input_ids"].pop()


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
        (_lacks_tensor, ("lora.proj",)),
        (_has_extra_tensor, ("lora.other.up",)),
        (_has_wrong_shape, ("I16", 3, 2, 4)),
        (_has_too_large_a_rank, (3, 1, 2)),
        (_has_unequal_ranks, (2, 1, "lora.proj")),
        (_has_no_tensors, ()),
        (_has_wrong_dtype, ("F32", 2, 4, 1, "I16")),
        (_is_for_another_profile, ("base_profile", "3" * 64, "2" * 64)),
        (_does_not_say_its_base, ("base_graph",)),
        (_is_truncated, ()),
        (_has_other_sha256, ("0" * 64,)),
        (_names_unknown_task, ("sequence[0].task", "restile", "remove-object", "restyle")),
        (_has_table_of_other_length, ("noise.000", 4, 3)),
        (_has_no_runtime, ("/nowhere/libonnxruntime.so",)),
        (_has_large_image, ("17x16", 3, 8, "16x16")),
        (_has_few_tokens, (TOKENS - 1, TOKENS)),
        (_has_unknown_input, ("base", "mystery", "float32", 1, "encoder_hidden_states")),
        (_is_no_graph, ()),
        (_has_wrong_component, ("vae_encoder",)),
        (_has_absent_adapter, ("No such file",)),
    ],
)
def test_wrong_input_is_refused_before_any_image(
    harness: Path, plan: Plan, tmp_path: Path, change: Change, message: tuple[object, ...]
) -> None:
    change(plan, tmp_path)
    heard = launch(harness, plan)
    assert heard.exit_code == 2, heard
    says(heard.error(), *message)
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


def test_a_runtime_older_than_plugin_libraries_is_refused_where_one_is_asked_for(harness: Path, plan: Plan) -> None:
    runtimes = sorted(Path("/usr/lib").glob("*/libonnxruntime.so.1.21.*"))  # Debian's, which its headers bring along
    if not runtimes:
        pytest.skip("needs libonnxruntime1.21")
    provider = {"name": "NobodysProvider", "library": "/nowhere/libnobody.so"}
    plan["runtime"] |= {"library": str(runtimes[0]), "execution_provider": provider}
    heard = launch(harness, plan)
    assert heard.exit_code == 2
    says(heard.error(), "1.21.0")
    says(heard.error(), 22, "NobodysProvider", "1.22")


def test_an_image_that_is_not_finite_fails_the_run(harness: Path, plan: Plan, tmp_path: Path) -> None:
    changed = tensors() | {"time_features": np.full((STEPS, FEATURES), np.nan, np.float32)}
    save_file(changed, tmp_path / "nan.safetensors")
    plan["tasks"]["restyle"]["tensors"] = str(tmp_path / "nan.safetensors")
    heard = launch(harness, plan)
    assert heard.exit_code == 3
    says(heard.error(), 0)


def _adapter(plan: Plan, folder: Path, content: dict[str, NDArray[Any]], made_for: dict[str, str] | None = MADE_FOR) -> None:
    path = folder / "adapter.safetensors"
    save_file(content, path, metadata=made_for)
    plan["adapters"]["restyle"] = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
