"""LoRA configurations: keys of patterns mean what they mean to PEFT, wrong values are refused by name, and none takes long."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from peft.utils.other import get_pattern_key  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from support.sentences import raising  # noqa: E402
from support.tiny_model import tiny_unet, write_adapter  # noqa: E402

from quadbench.errors import AdapterError  # noqa: E402
from quadbench.quad.adapters.inspection import inspect_adapter  # noqa: E402
from quadbench.quad.adapters.loading import load_adapter, sites_of_unet  # noqa: E402
from quadbench.quad.adapters.peft import SitePattern  # noqa: E402

UNET = tiny_unet()
BASE = sites_of_unet(UNET)
KEYS = [
    "to_q",
    "attn1.to_q",
    "1.to_q",
    "attn1_to_q",
    "o_q",
    "conv1",
    "net.0.proj",
    r"net\.0\.proj",
    "^down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q$",
    "^to_q",
    "^conv_in",
    "conv_in$",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_means_the_sites_that_it_means_to_peft(key: str) -> None:
    pattern = SitePattern(key)
    meant = {site for site in BASE.slots if get_pattern_key([key], site) == key}
    assert {site for site in BASE.slots if pattern.matches(site)} == meant


@pytest.mark.parametrize("key", ["", "(a+)+$", ".*attn1.*", "to_(q|k)", "to_[qk]", r"to_q\b", "to q", "a" * 257, "*"])
def test_a_key_that_is_more_than_a_name_is_refused(key: str) -> None:
    with raising(ValueError):
        SitePattern(key)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_adapter(UNET, tmp_path / "adapter", r=4, lora_alpha=8, target_modules=["to_q", "conv1"])
    return tmp_path / "adapter"


def configure(folder: Path, **changes: Any) -> None:
    """Change values of the configuration; ... takes one away."""
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lora_alpha": ...}, ("lora_alpha",)),
        ({"lora_alpha": None}, ("lora_alpha",)),
        ({"lora_alpha": "8"}, ("lora_alpha", 8)),
        ({"lora_alpha": True}, ("lora_alpha",)),
        ({"lora_alpha": float("nan")}, ("lora_alpha",)),
        ({"lora_alpha": 1e30}, ("lora_alpha", 65504, "1e+30")),
        ({"r": 0}, (1, 0)),
        ({"r": ...}, ()),
        ({"alpha_pattern": ["to_q"]}, ("alpha_pattern",)),
        ({"alpha_pattern": {"[": 1}}, ("alpha_pattern.[",)),
        ({"alpha_pattern": {"(a+)+$": 1}}, ("alpha_pattern.(a+)+$",)),
        ({"alpha_pattern": {"to_q": None}}, ("alpha_pattern.to_q",)),
        ({"rank_pattern": {"to_q": 1.5}}, ("rank_pattern.to_q",)),
        ({"rank_pattern": {f"{i}": 4 for i in range(1025)}}, ("rank_pattern", 1024)),
        ({"use_rslora": "yes"}, ("use_rslora", "yes")),
        ({"lora_alpha": ..., "r": None}, ("lora_alpha",)),
    ],
)
def test_a_configuration_with_wrong_values_is_refused_by_their_names(
    folder: Path, changes: dict[str, Any], reason: tuple[object, ...]
) -> None:
    configure(folder, **changes)
    with raising(AdapterError, "mine", "adapter_config.json", *reason):
        load_adapter("mine", folder, BASE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[1]", ""),
        (b"3", 3),
        (b"{", ""),
        (b"\xff\xfe\xff", ""),
        (b"[" * 100_000, ""),
        (b" " * (2**20 + 1), 1048576),
    ],
)
def test_a_file_that_holds_no_configuration_is_refused(folder: Path, content: bytes, reason: object) -> None:
    (folder / "adapter_config.json").write_bytes(content)
    with raising(AdapterError, reason):
        load_adapter("mine", folder, BASE)


def test_patterns_take_no_longer_than_reading(tmp_path: Path) -> None:
    """The most patterns and sites that are read, and names that a search would go through again and again."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    site, one = "a." * 62, torch.ones(1, 1)
    tensors = {f"base_model.model.{site}{i:03}.lora_{side}.weight": one.clone() for i in range(512) for side in "AB"}
    save_file(tensors, folder / "adapter_model.safetensors")
    keys = {"." * (100 + i // 20) + f"b{i % 20:02}": 1 for i in range(480)}  # nearly all of a key fits
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "alpha_pattern": keys, "rank_pattern": keys})
    )
    started = time.process_time()
    assert inspect_adapter(folder).problems == ()
    assert time.process_time() - started < 10


def test_ranks_other_than_the_configuration_s_are_refused(folder: Path) -> None:
    configure(folder, r=2)
    with raising(AdapterError, 4, 2):
        load_adapter("mine", folder, BASE)


def test_ranks_of_a_pattern_are_compared_too(folder: Path) -> None:
    configure(folder, rank_pattern={"conv1": 3})
    with raising(AdapterError, 4, 3, "conv1"):
        load_adapter("mine", folder, BASE)


def test_metadata_that_is_no_configuration_is_a_problem(folder: Path, tmp_path: Path) -> None:
    tensors = {
        key.replace("base_model.model.", "unet."): tensor
        for key, tensor in load_file(folder / "adapter_model.safetensors").items()
    }
    shutil.rmtree(folder)
    for text, reason in (
        ("[]", ""),
        ("{", ""),
        ("[" * 100_000, ""),
        (json.dumps({"unet.r": 4}), "lora_alpha"),
        (json.dumps({"unet.r": 4, "unet.lora_alpha": 4, "unet.alpha_pattern": {"(a+)+": 1}}), ""),
    ):
        path = tmp_path / "style.safetensors"
        save_file(tensors, path, metadata={"lora_adapter_metadata": text})
        with raising(AdapterError, "lora_adapter_metadata", "LoraConfig", reason):
            load_adapter("mine", path, BASE)
