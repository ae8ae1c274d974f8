"""Adapter files that are no plain LoRA of the model, or not whole, are refused by name."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from diffusers import UNet2DConditionModel  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from support.adapter_files import LDM_NAMES, Known, draw_pairs, kohya_name, kohya_tensors, load, write_kohya  # noqa: E402
from support.sentences import raising  # noqa: E402

from quadbench.errors import AdapterError  # noqa: E402
from quadbench.quad.adapters.loading import load_adapter, sites_of_graph, sites_of_unet  # noqa: E402
from quadbench.quad.model_files import AdapterFormat  # noqa: E402


def test_one_site_under_names_of_both_codes_is_refused(
    unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path
) -> None:
    site = "mid_block.attentions.0.proj_in"
    other = kohya_tensors({site: known[site]}, names={site: f"lora_unet_{LDM_NAMES[site]}"})
    tensors = kohya_tensors(known) | {key: tensor.clone() for key, tensor in other.items()}
    save_file(tensors, tmp_path / "twice.safetensors")
    with raising(AdapterError, site, 2) as caught:
        load(tmp_path / "twice.safetensors", unet)
    assert {"'mid_block_attentions_0_proj_in'", f"'{LDM_NAMES[site]}'"} <= set(caught.value.message.split())


def test_one_site_under_keys_of_two_ages_is_refused(unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path) -> None:
    site, tensors = "mid_block.attentions.0.proj_in", {}
    for down, up in (("lora_A.weight", "lora_B.weight"), ("lora.down.weight", "lora.up.weight")):
        tensors |= {f"unet.{site}.{down}": known[site].down.clone(), f"unet.{site}.{up}": known[site].up.clone()}
    save_file(tensors, tmp_path / "twice.safetensors")
    with raising(AdapterError, site, 1):
        load(tmp_path / "twice.safetensors", unet)


SITE = "lora_unet_mid_block_attentions_0_proj_in"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (f"{SITE}.dora_scale", ("DoRA", "dora_scale")),
        (f"{SITE}.hada_w1_a", ("LoHa", "hada_w1_a", "quadbench adapter convert")),
        (f"{SITE}.lokr_w1", ("LoKr", "lokr_w1", "quadbench adapter convert")),
        (f"{SITE}.lora_mid.weight", ("lora_mid",)),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", ("lora_te_",)),
        (f"{SITE}.diff", ()),
        ("lora_unet_conv_out.lora_up.weight", ("conv_out",)),
        ("lora_unet_conv_out.lora_down.weight", ("conv_out",)),
        ("lora_unet_conv_out.alpha", ("conv_out",)),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(
    unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path, extra: str, message: tuple[str, ...]
) -> None:
    path = tmp_path / "odd.safetensors"
    save_file(kohya_tensors(known) | {extra: torch.ones(4, 4)}, path)
    with raising(AdapterError, "style", *message):
        load(path, unet)


def test_all_problems_come_at_once(unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    nan = {kohya_name(next(iter(known))) + ".lora_up.weight": torch.full((4, 4), float("nan"))}
    save_file(kohya_tensors(known) | nan | {f"{SITE}.dora_scale": torch.ones(4)}, path)
    with raising(AdapterError, "DoRA"):
        load(path, unet)


def test_ranks_that_differ_within_a_pair_are_refused(unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_file(kohya_tensors(known) | {f"{SITE}.lora_up.weight": torch.ones(32, 9, 1, 1)}, path)
    with raising(AdapterError, "mid_block_attentions_0_proj_in", 9):
        load(path, unet)


def test_shapes_of_another_model_are_refused_with_both(
    unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path
) -> None:
    path = tmp_path / "odd.safetensors"
    save_file(kohya_tensors(known) | {f"{SITE}.lora_up.weight": torch.ones(64, known_rank(known), 1, 1)}, path)
    with raising(AdapterError, "mid_block.attentions.0.proj_in"):
        load(path, unet)


def known_rank(known: dict[str, Known]) -> int:
    return known["mid_block.attentions.0.proj_in"].down.shape[0]


def test_a_larger_rank_than_the_graph_has_room_for_is_refused(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    pairs = draw_pairs(unet, ["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"], alphas=[None])
    site = next(iter(pairs))
    graph = sites_of_graph({f"lora.{site}.down": (1, 32), f"lora.{site}.up": (32, 1)})
    with raising(AdapterError, 2, "to_q", 1):
        load_adapter("style", write_kohya(tmp_path / "large.safetensors", pairs), graph)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt"])
def test_a_pickle_is_refused_unopened(unet: UNet2DConditionModel, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"style{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with raising(AdapterError):
        load(path, unet)


def test_an_empty_file_is_refused(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    save_file({}, tmp_path / "empty.safetensors")
    with raising(AdapterError):
        load(tmp_path / "empty.safetensors", unet)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_file_that_was_cut_is_refused(unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path, kept: int) -> None:
    path = write_kohya(tmp_path / "cut.safetensors", known)
    path.write_bytes(path.read_bytes()[:kept])
    with raising(AdapterError):
        load(path, unet)


def test_an_unknown_format_is_answered_with_the_known_ones(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    save_file({"transformer.blocks.0.lora_A.weight": torch.ones(4, 4)}, tmp_path / "flux.safetensors")
    with raising(AdapterError):
        load(tmp_path / "flux.safetensors", unet)


def test_a_recipe_that_names_another_format_is_told_the_right_one(
    tiny_recipe: Path, unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path
) -> None:
    path = write_kohya(tmp_path / "style.safetensors", known)
    with raising(AdapterError, "lora_unet_"):
        load_adapter("style", path, sites_of_unet(unet), expected=AdapterFormat.DIFFUSERS)
