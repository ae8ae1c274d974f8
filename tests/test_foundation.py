"""Foundation models by their sources: folders, single files and published sizes with random weights."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from support.ldm_checkpoint import write_ldm_checkpoint  # noqa: E402
from support.sentences import raising, says  # noqa: E402

from quadbench.errors import UserError  # noqa: E402
from quadbench.quad.cache import digests_of  # noqa: E402
from quadbench.quad.model.float_graphs import copy_of_modules  # noqa: E402
from quadbench.quad.model.foundation import clip_tokenizer, embedded_conditions, load_checkpoint, load_foundation, random_module  # noqa: E402
from quadbench.quad.model_files import part_folder  # noqa: E402
from quadbench.recipe import CheckpointFoundation  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402


@pytest.fixture(scope="module")
def geometry(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model's configuration, but for the text encoder, which has to take CLIP's tokens."""
    folder = tmp_path_factory.mktemp("geometry")
    for part in ("unet", "vae", "text_encoder"):
        shutil.copytree(tiny_recipe.parent / "model" / part, folder / part, ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copy(tiny_recipe.parent / "model/model_index.json", folder)
    text = json.loads((folder / "text_encoder/config.json").read_text())
    text |= {
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    }
    (folder / "text_encoder/config.json").write_text(json.dumps(text))
    return str(folder)


def test_the_tokenizer_is_clips_own() -> None:
    tokenizer = clip_tokenizer()
    assert tokenizer("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (len(tokenizer), tokenizer.model_max_length) == (49408, 77)


@pytest.mark.parametrize(("geometry", "parameters"), [("sd15", 859_520_964), ("bk-sdm-base", 579_384_964)])
def test_a_published_geometry_has_the_published_number_of_weights(geometry: str, parameters: int) -> None:
    with torch.device("meta"):
        unet = random_module(geometry, "unet", seed=0)
    assert sum(p.numel() for p in unet.parameters()) == parameters


def test_random_weights_follow_from_their_seed_alone(geometry: str) -> None:
    first, again, other = (random_module(geometry, "unet", seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv_in.weight"], other["conv_in.weight"])


def test_random_weights_leave_other_random_numbers_alone(geometry: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    random_module(geometry, "vae", seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_what_a_geometry_lacks_is_that_of_stable_diffusion() -> None:
    assert part_folder("bk-sdm-base", "vae") == part_folder("sd15", "vae")
    assert part_folder("bk-sdm-base", "unet") != part_folder("sd15", "unet")


def test_a_released_unet_is_read_again_with_the_same_weights(tiny_recipe: Path) -> None:
    foundation = load_foundation(tiny_recipe.parent / "model")
    first = foundation.unet
    assert foundation.unet is first
    foundation.release()
    assert foundation.unet is not first
    assert torch.equal(foundation.unet.conv_in.weight, first.conv_in.weight)


def test_a_copy_of_modules_shares_weights_and_nothing_else(tiny_recipe: Path) -> None:
    unet = load_foundation(tiny_recipe.parent / "model").unet
    copy = copy_of_modules(unet)
    copy.conv_in = torch.nn.Identity()
    assert copy.conv_out.weight is unet.conv_out.weight
    assert isinstance(unet.conv_in, torch.nn.Conv2d)


def test_a_single_file_gives_the_model_that_it_was_made_of(geometry: str, tmp_path: Path) -> None:
    parts = {part: random_module(geometry, part, seed=3).eval() for part in ("unet", "vae", "text_encoder")}
    path = write_ldm_checkpoint(tmp_path / "model.safetensors", **parts)
    foundation = load_checkpoint(path, geometry)
    for part, expected in parts.items():
        weights = foundation.part(part).state_dict()
        assert {k: torch.equal(weights[k], v) for k, v in expected.state_dict().items()} == dict.fromkeys(weights, True), part
    assert len(foundation.tokenize("a cat")["input_ids"]) == 77
    assert embedded_conditions(foundation, [1.0, 2.0])["time_features"].shape == (2, 16)


def test_a_pickle_is_refused_by_name(tmp_path: Path) -> None:
    with raising(UserError, "model.ckpt"):
        load_checkpoint(tmp_path / "model.ckpt")


def test_a_damaged_single_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"no weights")
    with raising(UserError, "model.safetensors"):
        load_checkpoint(path).unet  # noqa: B018


def test_a_single_file_without_a_text_encoder_is_refused(geometry: str, tmp_path: Path) -> None:
    parts = {part: random_module(geometry, part, seed=3) for part in ("unet", "vae")}
    path = write_ldm_checkpoint(tmp_path / "model.safetensors", **parts, text_encoder=None)
    with raising(UserError, "model.safetensors"):
        load_checkpoint(path, geometry).part("text_encoder")


@pytest.mark.parametrize(("value", "holds"), [(float("nan"), ""), (float("inf"), ""), (3e38, 65504)])
@pytest.mark.parametrize(("part", "file"), [("unet", "diffusion_pytorch_model"), ("text_encoder", "model")])
def test_weights_that_no_model_has_are_refused_when_they_are_read(
    tiny_recipe: Path, tmp_path: Path, part: str, file: str, value: float, holds: object
) -> None:
    folder = Path(shutil.copytree(tiny_recipe.parent / "model", tmp_path / "model"))
    path = folder / part / f"{file}.safetensors"
    tensors = load_file(path)
    name = min(name for name in tensors if name.endswith(".bias"))
    tensors[name][0] = value
    save_file(tensors, path, metadata={"format": "pt"})
    with raising(UserError, holds, name, part):
        load_foundation(folder).part(part)


@pytest.mark.parametrize(
    ("part", "file"), [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")]
)
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda tensor: None, ""),
        (lambda tensor: torch.zeros(3, 5), ""),
        (lambda tensor: tensor.int(), "I32"),
        (lambda tensor: tensor.to(torch.complex64), "C64"),
    ],
    ids=["missing", "another shape", "integers", "complex"],
)
def test_weights_that_a_library_would_draw_or_convert_are_refused(
    part: str, file: str, change: Callable[[torch.Tensor], torch.Tensor | None], kind: str, model: Path
) -> None:
    path = model / part / f"{file}.safetensors"
    tensors = load_file(path)
    name = min(name for name in tensors if name.endswith(".bias"))
    if (changed := change(tensors.pop(name))) is not None:
        tensors[name] = changed
    save_file(tensors, path, metadata={"format": "pt"})
    with raising(UserError, name, kind):
        load_foundation(model).part(part)


def test_a_text_encoder_of_another_configuration_is_refused(model: Path) -> None:
    (model / "text_encoder/config.json").write_text("{}")
    with raising(UserError, "text_encoder"):
        assert load_foundation(model).part("text_encoder")


@pytest.fixture
def model(tiny_recipe: Path, tmp_path: Path) -> Path:
    """A folder in diffusers' layout, for one test to spoil."""
    return Path(shutil.copytree(tiny_recipe.parent / "model", tmp_path / "model"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every attempt to reach another machine fail the test."""

    def refuse(*address: object) -> None:
        raise AssertionError(f"asked the network for {address}")

    monkeypatch.setattr("socket.getaddrinfo", refuse)


def edited(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("part", ["model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"sample_size": NaN}', None], ids=["cut off", "a list", "NaN", "missing"])
def test_a_configuration_that_cannot_be_read_is_named(part: str, content: str | None, model: Path) -> None:
    (model / part).unlink() if content is None else (model / part).write_text(content)
    with pytest.raises(UserError) as refusal:
        load_foundation(model)
    assert part in str(refusal.value)
    assert str(model) in str(refusal.value)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "changes", [{"block_out_channels": "many"}, {"block_out_channels": []}, {"down_block_types": ["No"]}, {"norm_num_groups": 0}]
)
def test_a_configuration_that_fits_no_unet_is_refused_by_the_models_name(changes: dict[str, object], model: Path) -> None:
    edited(model / "unet/config.json", **changes)
    with raising(UserError):
        load_foundation(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"_class_name": "StableDiffusion3Pipeline"},
            ("StableDiffusion3Pipeline", "model_index.json"),
        ),
        ({"_class_name": None}, ("None", "model_index.json")),
        (
            {"unet": ["diffusers", "UNet1DModel"]},
            ("UNet1DModel", "unet", "model_index.json", "UNet2D"),
        ),
        ({"text_encoder": [None, None]}, ("None", "text_encoder")),
    ],
)
def test_another_pipeline_is_refused_by_what_its_index_says(
    changes: dict[str, object], message: tuple[str, ...], model: Path
) -> None:
    edited(model / "model_index.json", **changes)
    with pytest.raises(UserError) as refusal:
        load_foundation(model)
    says(str(refusal.value), *message)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device"])
def test_a_checkpoint_that_is_no_file_is_refused_before_it_is_read(kind: str, tmp_path: Path, tiny_recipe: Path) -> None:
    path = tmp_path / "model.safetensors"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "device":
        path.symlink_to("/dev/zero")
    recipe = load_recipe(tiny_recipe)
    with raising(UserError, "model.safetensors"):
        digests_of(recipe.model_copy(update={"foundation": CheckpointFoundation(source="checkpoint", path=path)}))
    with raising(UserError, "model.safetensors"):
        load_checkpoint(path)
