"""Families: what a folder, a single file or a LoRA holds is named by `recipe check`, and others are refused."""

import json
import re
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from support.sentences import raising, reads, says  # noqa: E402

from quadbench.cli import main  # noqa: E402
from quadbench.errors import UserError  # noqa: E402
from quadbench.quad.families.sd1 import SD1  # noqa: E402
from quadbench.quad.inputs import check_references, read_recipe  # noqa: E402
from quadbench.quad.model_family import read_folder, read_model  # noqa: E402
from quadbench.recipe import CheckpointFoundation, Recipe  # noqa: E402
from quadbench.recipe.tasks import DiffusersFoundation  # noqa: E402

SITE = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
TAKEN = ("Stable Diffusion 1.x", "Stable Diffusion 2.x", "Stable Diffusion XL")


@pytest.fixture
def folder(tiny_recipe: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model with its recipe, for one test to change."""
    return Path(shutil.copytree(tiny_recipe.parent, tmp_path / "tiny"))


def edited(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewritten(folder: Path, old: str, new: str) -> Path:
    """Return the recipe in the folder with a part of its text replaced."""
    path = folder / "recipe.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


SD2_TURBO = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}
SD2_V = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}


@pytest.mark.parametrize(
    ("unet", "scheduler", "expected"),
    [
        ({}, {}, ("Stable Diffusion 1.x", "epsilon", "leading")),
        ({"use_linear_projection": True}, SD2_TURBO, ("Stable Diffusion 2.x", "epsilon", "trailing")),
        ({"use_linear_projection": True}, SD2_V, ("Stable Diffusion 2.x", "v_prediction", "leading")),
        ({}, {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, ("flow_prediction", "shift 3")),
    ],
)
def test_a_check_names_the_family_and_the_schedule(
    unet: dict[str, object],
    scheduler: dict[str, object],
    expected: tuple[str, ...],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    edited(folder / "model/unet/config.json", **unet)
    path = folder / "model/scheduler/scheduler_config.json"
    config = json.loads(path.read_text()) | scheduler
    if config["_class_name"] == "FlowMatchEulerDiscreteScheduler":
        config.pop("prediction_type")
        rewritten(folder, "scheme: lcm", "scheme: ed")
    path.write_text(json.dumps(config))
    assert main(["recipe", "check", str(folder / "recipe.yaml")]) == 0
    says(capsys.readouterr().out, *expected)
    assert main(["recipe", "check", str(folder / "recipe.yaml"), "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert set(model) == {"family", "prediction", "spacing", "zero_terminal_snr"}


PIPELINES = {
    "StableDiffusionXLControlNetPipeline": "Stable Diffusion XL",
    "StableDiffusion3Pipeline": "Stable Diffusion 3",
    "FluxPipeline": "FLUX",
    "PixArtSigmaPipeline": "PixArt",
    "SanaPipeline": "Sana",
    "KandinskyV22Pipeline": "KandinskyV22Pipeline",
}


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("has_unet", [True, False], ids=["with a U-Net", "without"])
def test_a_folder_of_another_family_is_refused_by_its_name(pipeline: str, has_unet: bool, folder: Path) -> None:
    edited(folder / "model/model_index.json", _class_name=pipeline)
    if not has_unet:  # as of transformers
        shutil.rmtree(folder / "model/unet")
    with raising(UserError, PIPELINES[pipeline], *TAKEN):
        check_references(read_recipe(folder / "recipe.yaml"))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with raising(UserError, "unet", "model_index.json"):
        read_folder(tmp_path, {})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"_class_name": "EDMEulerScheduler"}, ("EDMEulerScheduler", "DDIMScheduler")),
        ({"_class_name": ["odd"]}, ("odd",)),
        ({"prediction_type": "score"}, ("score", "epsilon", "v_prediction", "sample")),
        ({"timestep_spacing": "cubic"}, ("cubic", "leading", "trailing", "linspace")),
        ({"num_train_timesteps": 10}, (10, 100)),
        ({"num_train_timesteps": "many"}, ("many",)),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "prediction_type": "epsilon"}, ("epsilon", "flow_prediction")),
        ({"prediction_type": "flow_prediction", "use_dynamic_shifting": True}, ("use_dynamic_shifting",)),
        ({"prediction_type": "flow_prediction", "shift": 0}, ("shift",)),
    ],
)
def test_a_scheduler_that_no_sampler_follows_is_refused(
    changes: dict[str, object], named: tuple[object, ...], folder: Path
) -> None:
    edited(folder / "model/scheduler/scheduler_config.json", **changes)
    with raising(UserError, *named):
        check_references(read_recipe(folder / "recipe.yaml"))


def test_the_recipe_corrects_a_models_schedule(folder: Path) -> None:
    path = rewritten(folder, "path: model}", "path: model, prediction: v_prediction, zero_terminal_snr: true}")
    scheduler = check_references(read_recipe(path)).scheduler
    assert (scheduler.prediction, scheduler.zero_terminal_snr) == ("v_prediction", True)
    plain = DiffusersFoundation(source="diffusers", path=folder / "model")
    assert read_model(plain).scheduler.prediction == "epsilon"


FAULTS = {
    "noise alone at the start": ({"rescale_betas_zero_snr": True}, "{scheme: lcm, steps: 2}", ("fill", "zero terminal SNR")),
    "a step that is not there": ({}, "{scheme: lcm, steps: 2, timesteps: [1000, 500]}", ("fill", 1000)),
    "LCM of flow": ({"prediction_type": "flow_prediction"}, "{scheme: lcm, steps: 2}", ("fill", "lcm", "ed")),
    "DDIM of flow": ({"prediction_type": "flow_prediction"}, "{scheme: ddim, steps: 2}", ("fill", "ddim", "ed")),
    "spaced flow": ({"prediction_type": "flow_prediction"}, "{scheme: ed, steps: 2, spacing: trailing}", ("fill", "spacing")),
    "listed flow": ({"prediction_type": "flow_prediction"}, "{scheme: ed, steps: 1, timesteps: [9]}", ("fill", "timesteps")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sampler_that_the_models_schedule_does_not_allow_is_refused_with_its_task(fault: str, folder: Path) -> None:
    changes, sampler, named = FAULTS[fault]
    edited(folder / "model/scheduler/scheduler_config.json", **changes)
    path = rewritten(folder, "{scheme: lcm, steps: 2}", sampler)
    with raising(UserError, *named):
        check_references(read_recipe(path))


def test_a_sampler_of_a_device_is_checked_too(folder: Path) -> None:
    path = rewritten(
        folder, "baselines:", "devices: {s25: {samplers: {fill: {scheme: lcm, steps: 1, timesteps: [4000]}}}}\nbaselines:"
    )
    with raising(UserError, "fill", "s25", 4000):
        check_references(read_recipe(path))


@pytest.mark.parametrize(
    ("sampler", "named"),
    [
        ("{scheme: lcm, steps: 2, timesteps: [1, 2]}", ("timesteps", "1, 2")),
        ("{scheme: lcm, steps: 4, timesteps: [999, 499]}", ("timesteps", 4, 2)),
        ("{scheme: lcm, steps: 4, spacing: trailing}", ("spacing",)),
        ("{scheme: ed, steps: 1, spacing: trailing, timesteps: [999]}", ("spacing", "timesteps")),
        ("{scheme: ed, steps: 2, timesteps: [999, -1]}", ("timesteps", "-1")),
        ("{scheme: ddim, steps: 2, spacing: cubic}", ("spacing", "trailing")),
    ],
)
def test_a_wrong_list_of_steps_stands_at_its_line(
    sampler: str, named: tuple[object, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = rewritten(folder, "{scheme: lcm, steps: 2}", sampler)
    assert main(["recipe", "check", str(path)]) == 2
    says(capsys.readouterr().err, *named)


def lora_of(width: int, name: str = f"lora_unet_{SITE}") -> dict[str, torch.Tensor]:
    return {f"{name}.lora_down.weight": torch.ones(2, width), f"{name}.lora_up.weight": torch.ones(width, 2)}


def recipe_with(folder: Path, tensors: dict[str, torch.Tensor], source: str = "kohya") -> Recipe:
    save_file(tensors, folder / "lora.safetensors")
    adapter = f"{{source: {source}, path: lora.safetensors}}"
    return read_recipe(rewritten(folder, "second: {source: peft, path: adapters/second}", f"second: {adapter}"))


@pytest.mark.parametrize(
    ("tensors", "family"),
    [
        (lora_of(768), "Stable Diffusion 1.x"),
        (lora_of(1024), "Stable Diffusion 2.x"),
        (lora_of(2048), "Stable Diffusion XL"),
        (lora_of(320), "320"),
        (lora_of(16) | lora_of(16, "lora_te2_text_model_encoder_layers_0_mlp_fc1"), "Stable Diffusion XL"),
        (lora_of(64, "lora_unet_double_blocks_0_img_attn_qkv"), "FLUX"),
        (lora_of(64, "lora_unet_joint_blocks_0_x_block_attn_qkv"), "Stable Diffusion 3"),
        (lora_of(64, "transformer.transformer_blocks.0.attn.to_q"), "a diffusion transformer"),
        (lora_of(64, "diffusion_model.layers.0.attention.qkv"), "a diffusion transformer"),
    ],
)
def test_a_lora_of_another_family_is_refused_by_its_name(tensors: dict[str, torch.Tensor], family: str, folder: Path) -> None:
    """The tiny model's text has 16 channels."""
    with raising(UserError, "second", family, 16, *TAKEN):
        check_references(recipe_with(folder, tensors))


@pytest.mark.parametrize("name", [f"lora_unet_{SITE}", "lora_unet_down_blocks_0_resnets_0_conv1"])
def test_a_lora_of_the_models_own_family_passes(name: str, folder: Path) -> None:
    assert check_references(recipe_with(folder, lora_of(16, name))).family is SD1


@pytest.mark.parametrize(
    "key",
    [
        "unet.{site}.lora_A.weight",
        "unet.{site}.lora.down.weight",
        "{site}.lora_A.weight",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight",
    ],
)
def test_diffusers_names_of_a_loras_text_are_understood(key: str, folder: Path) -> None:
    name = key.format(site="down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")
    with pytest.raises(UserError) as refusal:
        check_references(recipe_with(folder, {name: torch.ones(2, 2048)}, source="diffusers"))
    reads(str(refusal.value), "Stable Diffusion XL", 2048)


def checkpoint(path: Path, width: int | None, *others: str, said: str | None = None) -> CheckpointFoundation:
    """Write a file with the names of a single-file model's tensors, few and small."""
    tensors = {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(1), **{name: torch.ones(1) for name in others}}
    if width:
        tensors["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] = torch.ones(2, width)
    save_file(tensors, path, metadata={"modelspec.prediction_type": said} if said else {})
    return CheckpointFoundation(source="checkpoint", path=path)


@pytest.mark.parametrize(
    ("width", "others", "family"),
    [
        (1024, (), "Stable Diffusion 2.x"),
        (2048, (), "Stable Diffusion XL"),
        (None, ("conditioner.embedders.0.transformer.weight",), "Stable Diffusion XL"),
        (None, ("model.diffusion_model.joint_blocks.0.weight",), "Stable Diffusion 3"),
        (None, ("model.diffusion_model.double_blocks.0.weight",), "FLUX"),
    ],
)
def test_a_single_file_of_another_family_is_refused_by_its_name(
    width: int | None, others: tuple[str, ...], family: str, tmp_path: Path
) -> None:
    with raising(UserError, "model.safetensors", family, *TAKEN):
        read_model(checkpoint(tmp_path / "model.safetensors", width, *others))


def test_a_lora_is_no_single_file_model(tmp_path: Path) -> None:
    save_file(lora_of(768), tmp_path / "lora.safetensors")
    with raising(UserError, "lora.safetensors", "lora_unet_", "Stable Diffusion 1.x"):
        read_model(CheckpointFoundation(source="checkpoint", path=tmp_path / "lora.safetensors"))


@pytest.mark.parametrize(("said", "prediction"), [(None, "epsilon"), ("epsilon", "epsilon"), ("v", "v_prediction")])
def test_a_single_file_says_what_it_predicts_and_the_recipe_corrects_it(
    said: str | None, prediction: str, tmp_path: Path
) -> None:
    foundation = checkpoint(tmp_path / "model.safetensors", 768, said=said)
    assert read_model(foundation).scheduler.prediction == prediction
    corrected = foundation.model_copy(update={"prediction": "sample", "zero_terminal_snr": True})
    assert read_model(corrected).scheduler.prediction == "sample"
    assert read_model(corrected).scheduler.zero_terminal_snr


def test_a_single_file_that_predicts_what_nobody_knows_is_refused(tmp_path: Path) -> None:
    with raising(UserError, "model.safetensors", "cats"):
        read_model(checkpoint(tmp_path / "model.safetensors", 768, said="cats"))


def test_a_recipe_without_schedule_keys_has_the_digest_of_before(folder: Path) -> None:
    """Null values are left out, so that recipes of before keep their digests."""
    recipe = read_recipe(folder / "recipe.yaml")
    written = recipe.model_dump_json()
    assert not re.search("spacing|timesteps|prediction|zero_terminal_snr", written)
    spaced = read_recipe(rewritten(folder, "{scheme: ed, steps: 3}", "{scheme: ed, steps: 3, spacing: trailing}"))
    assert '"spacing":"trailing"' in spaced.model_dump_json()
