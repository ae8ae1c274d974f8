"""Adapters with a part for the text encoder: refused, or the U-Net's part alone is taken, and what the other comes to is said."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from support.adapter_files import draw_pairs, kohya_tensors, write_kohya  # noqa: E402
from support.sentences import raising, says  # noqa: E402
from support.tiny_model import tiny_unet  # noqa: E402

from quadbench.artifacts import Caveat  # noqa: E402
from quadbench.cli import main  # noqa: E402
from quadbench.errors import AdapterError  # noqa: E402
from quadbench.quad.adapters.adapter import Adapter, OmittedPart  # noqa: E402
from quadbench.quad.adapters.loading import load_adapter, read_adapter, sites_of_unet  # noqa: E402
from quadbench.quad.build import doubts_of  # noqa: E402
from quadbench.quad.model_files import AdapterFormat, AdapterSource  # noqa: E402
from quadbench.quad.reference import with_adapters  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402

UNET = tiny_unet()
BASE = sites_of_unet(UNET)
KNOWN = draw_pairs(UNET, ("attn1.to_q", "proj_in"))
UNET_ENERGY = sum(float(pair.delta.square().sum()) for pair in KNOWN.values())
DOWN, UP = torch.full((2, 8), 0.5), torch.full((8, 2), 0.25)
KOHYA_TEXT = {
    "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": DOWN,
    "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": UP,
    "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0),
}


def write_both(path: Path) -> Path:
    save_file(kohya_tensors(KNOWN) | KOHYA_TEXT, path)
    return path


def energy_share(scale: float) -> float:
    energy = float((UP @ DOWN * scale).square().sum())
    return energy / (energy + UNET_ENERGY)


def test_only_on_demand_is_the_text_encoders_part_left_out(tmp_path: Path) -> None:
    path = write_both(tmp_path / "both.safetensors")
    with raising(AdapterError) as refusal:
        load_adapter("both", path, BASE)
    assert "--unet-only" in str(refusal.value.hint)
    adapter = load_adapter("both", path, BASE, unet_only=True)
    plain = load_adapter("both", write_kohya(tmp_path / "plain.safetensors", KNOWN), BASE)
    assert adapter.pairs.keys() == plain.pairs.keys()
    assert all(torch.equal(adapter.pairs[site].up, plain.pairs[site].up) for site in plain.pairs)


def test_sites_tensors_and_share_of_the_energy_are_said(tmp_path: Path) -> None:
    left_out = read_adapter("both", write_both(tmp_path / "both.safetensors"), unet_only=True).left_out
    assert left_out is not None
    assert (left_out.sites, left_out.tensors) == (1, 3)
    assert left_out.energy_share == pytest.approx(energy_share(0.5), rel=1e-5)  # alpha 1, rank 2
    says(str(left_out), 1, 3)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
        ("lora.down.weight", "lora.up.weight"),
        ("lora_A.weight", "lora_B.weight"),
    ],
)
def test_every_naming_of_diffusers_is_counted(down: str, up: str, tmp_path: Path) -> None:
    site = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    own = {f"unet.{name}.lora_A.weight": pair.down for name, pair in KNOWN.items()}
    own |= {f"unet.{name}.lora_B.weight": pair.up for name, pair in KNOWN.items()}
    save_file(own | {f"{site}.{down}": DOWN, f"{site}.{up}": UP}, tmp_path / "both.safetensors")
    content = read_adapter("both", tmp_path / "both.safetensors", unet_only=True)
    assert (content.format, content.reading.problems) == (AdapterFormat.DIFFUSERS, ())
    assert content.left_out is not None
    assert (content.left_out.sites, content.left_out.tensors) == (1, 2)
    energy = float((UP @ DOWN).square().sum())
    whole = energy + sum(pair.energy for pair in content.reading.pairs.values())
    assert content.left_out.energy_share == pytest.approx(energy / whole, rel=1e-5)


def test_an_adapter_without_such_a_part_leaves_nothing_out(tmp_path: Path) -> None:
    assert load_adapter("plain", write_kohya(tmp_path / "plain.safetensors", KNOWN), BASE, unet_only=True).left_out is None


def test_an_adapter_of_the_text_encoder_alone_is_refused(tmp_path: Path) -> None:
    save_file(KOHYA_TEXT, tmp_path / "text.safetensors")
    with raising(AdapterError):
        load_adapter("text", tmp_path / "text.safetensors", BASE, unet_only=True)


def test_a_part_that_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    half = {name: tensor for name, tensor in KOHYA_TEXT.items() if "lora_up" not in name}
    save_file(kohya_tensors(KNOWN) | half, tmp_path / "both.safetensors")
    with raising(AdapterError, "lora_te_text"):
        load_adapter("both", tmp_path / "both.safetensors", BASE, unet_only=True)


def test_inspect_says_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_both(tmp_path / "both.safetensors")
    assert main(["adapter", "inspect", str(path), "--unet-only", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"]["sites"] == 1
    assert main(["adapter", "inspect", str(path), "--unet-only"]) == 0
    says(capsys.readouterr().out, 1)


def test_the_reference_lacks_the_part_too(tmp_path: Path) -> None:
    path = write_both(tmp_path / "both.safetensors")
    sample, text = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 16)
    outputs = [
        with_adapters(UNET, {"known": AdapterSource(format=AdapterFormat.KOHYA, path=own)}, {"known": 1.0})(
            sample, 5, text
        ).sample
        for own in (path, write_kohya(tmp_path / "plain.safetensors", KNOWN))
    ]
    assert torch.equal(*outputs)


def test_the_doubt_goes_with_the_bundle_where_something_was_left_out(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    left_out = OmittedPart(sites=1, tensors=3, energy_share=0.1)
    assert doubts_of(recipe, [Adapter(name="both", pairs={}, left_out=left_out)]) == (Caveat.UNET_ONLY,)
    assert doubts_of(recipe, [Adapter(name="plain", pairs={})]) == ()


def test_a_recipe_asks_for_it_by_the_same_word(tiny_recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    text = tiny_recipe.read_text().replace("{source: peft, path: adapters/first}", "{source: kohya, path: a.st, unet_only: true}")
    path.write_text(text)
    assert load_recipe(path).adapters["first"].unet_only is True
