"""Converting LoHa, LoKr and full differences to LoRA: the updates are PEFT's own, exact where their rank allows, else stated."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from peft import LoHaConfig, LoKrConfig, get_peft_model  # noqa: E402
from peft.tuners.lycoris_utils import LycorisLayer  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from support.adapter_files import Known, draw_pairs, kohya_name, kohya_tensors, write_kohya  # noqa: E402
from support.sentences import raising, says  # noqa: E402
from support.tiny_model import tiny_unet, write_adapter  # noqa: E402

from quadbench.cli import main  # noqa: E402
from quadbench.errors import AdapterError, UserError  # noqa: E402
from quadbench.quad.adapters.convert import METADATA, Conversion, convert, write_conversion  # noqa: E402
from quadbench.quad.adapters.kohya import read_weight_updates  # noqa: E402
from quadbench.quad.adapters.loading import load_adapter, sites_of_unet  # noqa: E402
from quadbench.results.digests import sha256_of  # noqa: E402

UNET = tiny_unet()
BASE = sites_of_unet(UNET)
TARGETS = ["to_q", "proj_in", "conv1", "conv_shortcut"]
LINEAR, CONVOLUTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.resnets.0.conv1"
EVERYTHING = 512  # a rank that no matrix of the model has

METHODS = {
    "loha": LoHaConfig(r=3, alpha=5, target_modules=TARGETS, init_weights=False),
    "loha, tucker": LoHaConfig(r=3, alpha=5, target_modules=TARGETS, init_weights=False, use_effective_conv2d=True),
    "lokr": LoKrConfig(r=2, alpha=5, target_modules=TARGETS, init_weights=False),
    "lokr, tucker": LoKrConfig(r=2, alpha=5, target_modules=TARGETS, init_weights=False, use_effective_conv2d=True),
    "lokr, both": LoKrConfig(r=1, alpha=5, target_modules=TARGETS, init_weights=False, decompose_both=True),
    "lokr, whole": LoKrConfig(r=64, alpha=5, target_modules=TARGETS, init_weights=False),
}


def peft_layers(config: LoHaConfig | LoKrConfig) -> Iterator[tuple[str, LycorisLayer]]:
    torch.manual_seed(1)
    model = get_peft_model(copy.deepcopy(UNET), config)
    yield from (
        (name.removeprefix("base_model.model."), module)
        for name, module in model.named_modules()
        if isinstance(module, LycorisLayer)
    )


def write_lycoris(path: Path, config: LoHaConfig | LoKrConfig) -> dict[str, "torch.Tensor"]:
    """Write PEFT's tensors under LyCORIS' names. Return PEFT's own updates of weights by site.

    A LoKr of two whole factors has no rank to divide by: LyCORIS then scales by 1, PEFT by alpha / r all the same.
    """
    tensors, updates = {}, {}
    for site, layer in peft_layers(config):
        parts = layer.adapter_layer_names
        for part in parts:
            own = getattr(layer, part)
            if "default" in own:
                tensors[f"{kohya_name(site)}.{part}"] = own["default"].detach().clone()
        tensors[f"{kohya_name(site)}.alpha"] = torch.tensor(float(config.alpha))
        has_rank = any(part in ("hada_w1_b", "lokr_w1_b", "lokr_w2_b") and "default" in getattr(layer, part) for part in parts)
        updates[site] = layer.get_delta_weight("default").detach() / (1.0 if has_rank else layer.scaling["default"])
    save_file(tensors, path)
    return updates


def delta(conversion: Conversion, site: str) -> "torch.Tensor":
    pair = conversion.adapter.pairs[site]
    return pair.up.flatten(1) @ pair.down.flatten(1)


def write_full(path: Path, diffs: dict[str, "torch.Tensor"], **others: "torch.Tensor") -> Path:
    save_file({f"{kohya_name(site)}.diff": diff.contiguous() for site, diff in diffs.items()} | others, path)
    return path


@pytest.mark.parametrize("method", METHODS)
def test_the_updates_are_those_that_peft_computes(method: str, tmp_path: Path) -> None:
    updates = write_lycoris(tmp_path / "a.safetensors", METHODS[method])
    conversion = convert(tmp_path / "a.safetensors", BASE, rank=EVERYTHING)
    assert conversion.adapter.pairs.keys() == updates.keys()
    for site, update in updates.items():
        torch.testing.assert_close(delta(conversion, site), update.flatten(1), rtol=1e-4, atol=1e-6)
    assert conversion.error < 1e-6


def write_peft(folder: Path, config: LoHaConfig | LoKrConfig) -> dict[str, "torch.Tensor"]:
    """Have PEFT save an adapter. Return its own updates of weights by site."""
    torch.manual_seed(1)
    model = get_peft_model(copy.deepcopy(UNET), config)
    model.save_pretrained(folder)
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, LycorisLayer))
    return {name.removeprefix("base_model.model."): layer.get_delta_weight("default").detach() for name, layer in layers}


@pytest.mark.parametrize("method", METHODS)
def test_what_peft_saved_is_read_with_the_scale_of_its_configuration(method: str, tmp_path: Path) -> None:
    config = copy.deepcopy(METHODS[method])
    config.rank_pattern, config.alpha_pattern = {"conv_shortcut": config.r + 1}, {"to_q": 9.0}
    updates = write_peft(tmp_path / "a", config)
    conversion = convert(tmp_path / "a", BASE, rank=EVERYTHING)
    assert conversion.adapter.pairs.keys() == updates.keys()
    for site, update in updates.items():
        torch.testing.assert_close(delta(conversion, site), update.flatten(1), rtol=1e-4, atol=1e-6)
    assert conversion.source_sha256 == sha256_of(tmp_path / "a/adapter_model.safetensors")


def test_pairs_that_peft_saved_are_narrowed(tmp_path: Path) -> None:
    write_adapter(UNET, tmp_path / "a", r=4, lora_alpha=8, target_modules=TARGETS)
    conversion = convert(tmp_path / "a", BASE, rank=2)
    assert {(site.method, site.rank) for site in conversion.sites} == {("LoRA", 2)}
    kept, whole = convert(tmp_path / "a", BASE, rank=4), load_adapter("a", tmp_path / "a", BASE)
    assert all(torch.equal(pair.up, whole.pairs[site].up) for site, pair in kept.adapter.pairs.items())


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_a_peft_folder_that_needs_it_is_told_of_the_conversion(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_peft(tmp_path / "a", METHODS[kind])
    assert main(["adapter", "inspect", str(tmp_path / "a")]) == 2
    said = " ".join(capsys.readouterr().out.split())
    name = {"loha": "LoHa", "lokr": "LoKr"}[kind]
    says(said, name, "base_model.model.down_blocks.0", "quadbench adapter convert")


CHANGED = {
    "a LoRA's": ("loha", {"peft_type": "LORA", "lora_alpha": 5}, ("LoHa", "LORA")),
    "a LoKr's": ("loha", {"peft_type": "LOKR"}, ("LoHa", "LOKR")),
    "another rank": ("loha", {"r": 4}, (3, 4, "down_blocks")),
    "no alpha": ("lokr", {"alpha": None}, ()),
    "IA3": ("lokr", {"peft_type": "IA3"}, ("IA3", "LORA", "LOKR")),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_folder_whose_configuration_belongs_to_another_adapter_is_refused(case: str, tmp_path: Path) -> None:
    method, change, message = CHANGED[case]
    write_peft(tmp_path / "a", METHODS[method])
    path = tmp_path / "a/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with raising(AdapterError, *message):
        convert(tmp_path / "a", BASE, rank=2)


@pytest.mark.parametrize("options", [{"modules_to_save": ["conv_out"]}, {"bias": "all"}])
def test_whole_weights_beside_a_lora_are_refused_by_name(options: dict[str, Any], tmp_path: Path) -> None:
    write_adapter(UNET, tmp_path / "a", r=4, target_modules=["to_q"], **options)
    for read in (lambda: load_adapter("a", tmp_path / "a", BASE), lambda: convert(tmp_path / "a", BASE, rank=2)):
        with raising(AdapterError, "modules_to_save", "base_model.model.conv_"):
            read()


def test_a_loha_has_the_rank_of_its_factors_product_and_is_recovered_exactly(tmp_path: Path) -> None:
    write_lycoris(tmp_path / "a.safetensors", METHODS["loha"])
    conversion = convert(tmp_path / "a.safetensors", BASE, rank=9)
    assert {site.rank for site in conversion.sites} == {9}
    assert conversion.error < 1e-6


def test_a_full_difference_of_low_rank_is_recovered_exactly_at_that_rank(tmp_path: Path) -> None:
    known = draw_pairs(UNET, TARGETS)
    shapes = {site: (*UNET.get_submodule(site).weight.shape,) for site in known}
    path = write_full(tmp_path / "a.safetensors", {site: pair.delta.view(shapes[site]) for site, pair in known.items()})
    conversion = convert(path, BASE, rank=4)
    assert {site: pair.rank for site, pair in conversion.adapter.pairs.items()} == {s: k.down.shape[0] for s, k in known.items()}
    for site, pair in known.items():
        torch.testing.assert_close(delta(conversion, site), pair.delta, rtol=1e-4, atol=1e-6)


def test_the_error_is_that_of_the_singular_values_cut_off(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = {site: torch.randn(UNET.get_submodule(site).weight.shape) for site in (LINEAR, CONVOLUTION)}
    conversion = convert(write_full(tmp_path / "a.safetensors", weights), BASE, rank=5)
    lost = {}
    for row in conversion.sites:
        singular = torch.linalg.svdvals(weights[row.site].flatten(1).double())
        lost[row.site] = float(singular[5:].square().sum())
        assert row.error == pytest.approx((lost[row.site] / float(singular.square().sum())) ** 0.5, rel=1e-5)
    whole = sum(float(w.double().square().sum()) for w in weights.values())
    assert conversion.error == pytest.approx((sum(lost.values()) / whole) ** 0.5, rel=1e-5)
    assert conversion.sites[0].error >= conversion.sites[1].error


def test_lokr_without_low_rank_factors_has_scale_1_whatever_its_alpha(tmp_path: Path) -> None:
    parts = {"lokr_w1": torch.randn(2, 2), "lokr_w2": torch.randn(8, 8)}
    tensors = {f"{kohya_name(LINEAR)}.{part}": tensor for part, tensor in parts.items()}
    save_file(tensors | {f"{kohya_name(LINEAR)}.alpha": torch.tensor(1e10)}, tmp_path / "a.safetensors")
    with raising(AdapterError, 65504):
        convert(tmp_path / "a.safetensors", BASE, rank=16)
    save_file(tensors | {f"{kohya_name(LINEAR)}.alpha": torch.tensor(7.0)}, tmp_path / "a.safetensors")
    conversion = convert(tmp_path / "a.safetensors", BASE, rank=16)
    torch.testing.assert_close(delta(conversion, LINEAR), torch.kron(parts["lokr_w1"], parts["lokr_w2"]), rtol=1e-4, atol=1e-6)


def test_pairs_of_the_file_stay_as_they_are_and_larger_ones_are_narrowed(tmp_path: Path) -> None:
    known = draw_pairs(UNET, ("to_q", "conv1"))
    path = write_kohya(tmp_path / "a.safetensors", known)
    conversion = convert(path, BASE, rank=2)
    for row in conversion.sites:
        assert row.method == "LoRA"
        assert row.rank == 2
        assert (row.error == 0) is (known[row.site].down.shape[0] == 2)
    kept = convert(path, BASE, rank=4)
    assert kept.error == 0
    assert all(torch.allclose(delta(kept, site), pair.delta, atol=1e-6) for site, pair in known.items())


def test_what_is_written_is_an_ordinary_adapter_that_says_where_it_comes_from(tmp_path: Path, tiny_recipe: Path) -> None:
    source, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    updates = write_lycoris(source, METHODS["lokr"])
    assert main(["adapter", "convert", str(source), "--rank", "4", "--recipe", str(tiny_recipe), "--output", str(output)]) == 0
    adapter = load_adapter("b", output, BASE)
    assert adapter.pairs.keys() == updates.keys()
    assert adapter.rank == 4
    with safe_open(output, framework="pt") as file:
        said = json.loads(file.metadata()[METADATA])
    assert (said["source"], said["rank"], said["methods"]) == ("a.safetensors", 4, ["LoKr"])
    assert 0 < said["relative_error"] < 1


def test_the_command_names_the_worst_site_and_the_error(
    tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_lycoris(source, METHODS["loha"])
    command = ["adapter", "convert", str(source), "--rank", "2", "--recipe", str(tiny_recipe), "--output", str(output)]
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    output.unlink()
    assert main(command) == 0
    worst = answer["sites"][0]
    says(capsys.readouterr().out, f"{answer['relative_error']:.2%}", f"{worst['error']:.2%}", worst["site"])


def test_a_conversion_does_not_replace_a_file(tmp_path: Path) -> None:
    write_lycoris(tmp_path / "a.safetensors", METHODS["lokr"])
    conversion = convert(tmp_path / "a.safetensors", BASE, rank=4)
    (tmp_path / "b.safetensors").write_text("mine")
    with raising(UserError):
        write_conversion(conversion, tmp_path / "b.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]
    with raising(UserError):
        write_conversion(conversion, tmp_path / "b.bin")
    with raising(UserError):
        write_conversion(conversion, tmp_path / "nowhere/b.safetensors")


def test_updates_of_biases_are_left_out_and_counted(tmp_path: Path) -> None:
    diffs = {site: torch.randn(UNET.get_submodule(site).weight.shape) for site in (LINEAR, CONVOLUTION)}
    bias = torch.full((32,), 0.25)
    path = write_full(tmp_path / "a.safetensors", diffs, **{f"{kohya_name(CONVOLUTION)}.diff_b": bias})
    conversion = convert(path, BASE, rank=2)
    assert (conversion.biases, conversion.greatest_bias) == (1, 0.25)


def test_the_text_encoders_part_is_refused_or_left_out_with_its_share_of_the_energy(tmp_path: Path) -> None:
    unet, text = torch.randn(16, 16), torch.randn(8, 8)
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1.diff"
    path = write_full(tmp_path / "a.safetensors", {LINEAR: unet}, **{name: text})
    with raising(AdapterError, "lora_te_text"):
        convert(path, BASE, rank=2)
    left_out = convert(path, BASE, rank=2, unet_only=True).adapter.left_out
    energies = [float(tensor.square().sum()) for tensor in (text, unet)]
    assert left_out is not None
    assert (left_out.sites, left_out.tensors) == (1, 1)
    assert left_out.energy_share == pytest.approx(energies[0] / sum(energies))


ODD = {
    "several methods": ({"diff": torch.ones(16, 16), "lokr_w1": torch.ones(2, 2)}, ()),
    "a part missing": ({"hada_w1_a": torch.ones(16, 2), "hada_w1_b": torch.ones(2, 16)}, ("LoHa",)),
    "biases alone": ({"diff_b": torch.ones(16)}, ()),
    "another shape": ({"diff": torch.ones(16, 8)}, (16, 8)),
    "factors that do not fit": (
        {"lokr_w1": torch.ones(2, 2), "lokr_w2_a": torch.ones(8, 2), "lokr_w2_b": torch.ones(3, 8)},
        (),
    ),
    "unequal terms": (
        {
            "hada_w1_a": torch.ones(16, 2),
            "hada_w1_b": torch.ones(2, 16),
            "hada_w2_a": torch.ones(8, 2),
            "hada_w2_b": torch.ones(2, 16),
        },
        (),
    ),
    "not finite": ({"diff": torch.full((16, 16), torch.nan)}, ()),
    "nothing": ({"diff": torch.zeros(16, 16)}, (1,)),
    "DoRA": ({"diff": torch.ones(16, 16), "dora_scale": torch.ones(16, 1)}, ("DoRA",)),
    "three dimensions": ({"diff": torch.ones(16, 16, 1)}, (2, 4)),
    "two alphas": (
        {"lokr_w1": torch.ones(2, 2), "lokr_w2": torch.ones(8, 8), "alpha": torch.ones(2)},
        (),
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_a_file_that_is_no_sound_update_is_refused(case: str, tmp_path: Path) -> None:
    parts, message = ODD[case]
    save_file({f"{kohya_name(LINEAR)}.{part}": tensor for part, tensor in parts.items()}, tmp_path / "a.safetensors")
    with raising(AdapterError, *message):
        convert(tmp_path / "a.safetensors", BASE, rank=2)


def test_an_update_that_would_fill_the_memory_is_refused_before_it_is_formed() -> None:
    parts = {"lokr_w1": torch.ones(4096, 1), "lokr_w2": torch.ones(4096, 8)}
    (problem,) = read_weight_updates({f"{kohya_name(LINEAR)}.{part}": tensor for part, tensor in parts.items()}).problems
    says(problem.message, 67108864)


def test_two_tensors_for_one_part_are_refused_by_their_names(tmp_path: Path) -> None:
    write_peft(tmp_path / "a", METHODS["loha"])
    path = tmp_path / "a/adapter_model.safetensors"
    tensors = load_file(path)
    first = next(name for name in tensors if name.endswith(".hada_w1_a"))
    save_file(tensors | {f"{first}.default": tensors[first].clone()}, path)
    with raising(AdapterError, "hada_w1_a", first):
        convert(tmp_path / "a", BASE, rank=2)


def test_the_file_inside_a_peft_folder_stands_for_the_folder(tmp_path: Path) -> None:
    write_peft(tmp_path / "a", METHODS["lokr"])
    whole, file = (convert(path, BASE, rank=2) for path in (tmp_path / "a", tmp_path / "a/adapter_model.safetensors"))
    assert file.sites == whole.sites


def test_a_site_under_two_methods_is_refused(tmp_path: Path) -> None:
    pair = kohya_tensors({LINEAR: Known(down=torch.ones(2, 16), up=torch.ones(16, 2), alpha=None)})
    save_file(pair | {f"{kohya_name(LINEAR)}.diff": torch.ones(16, 16)}, tmp_path / "a.safetensors")
    with raising(AdapterError, "down_blocks_0_attentions_0_"):
        convert(tmp_path / "a.safetensors", BASE, rank=2)


@pytest.mark.parametrize("rank", ["0", "-1", "1025", "four", "1e2"])
def test_a_rank_that_is_none_is_refused(rank: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "b.safetensors")
    with pytest.raises(SystemExit):
        main(["adapter", "convert", "a.safetensors", f"--rank={rank}", "--recipe", "quickstart", "--output", output])
    says(capsys.readouterr().err, 1, 1024)


def test_what_adapters_that_need_it_are_told_is_the_command(tmp_path: Path) -> None:
    write_lycoris(tmp_path / "a.safetensors", METHODS["loha"])
    with pytest.raises(AdapterError) as refusal:
        load_adapter("a", tmp_path / "a.safetensors", BASE)
    assert "quadbench adapter convert" in str(refusal.value.hint)


def test_half_precision_is_read(tmp_path: Path) -> None:
    write_lycoris(tmp_path / "a.safetensors", METHODS["lokr"])
    halves = {name: tensor.half() for name, tensor in load_file(tmp_path / "a.safetensors").items()}
    save_file(halves, tmp_path / "half.safetensors")
    assert convert(tmp_path / "half.safetensors", BASE, rank=EVERYTHING).error < 1e-6
