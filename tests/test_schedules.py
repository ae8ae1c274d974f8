"""Pictures of float graphs against diffusers' own pipelines, under the noise schedules that models and LoRAs need."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import diffusers  # noqa: E402
from diffusers import StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402
from support.float_pictures import NEGATIVE, PROMPT, Model, drawn, prepared_model, task_of  # noqa: E402

from quadbench.artifacts.pixels import max_abs_difference  # noqa: E402
from quadbench.quad.items import Item, fixed_table  # noqa: E402
from quadbench.quad.model.foundation import load_foundation  # noqa: E402
from quadbench.quad.reference import reference_for, with_adapters  # noqa: E402

pytestmark = pytest.mark.slow
SD15 = {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
STEPS = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def sd1(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny Stable Diffusion 1.x."""
    folder = Path(shutil.copytree(tiny_recipe.parent, tmp_path_factory.mktemp("sd1") / "tiny"))
    return prepared_model(folder, tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def sd2(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny Stable Diffusion 2.x: it differs in linear projections and in its text encoder's GELU."""
    folder = Path(shutil.copytree(tiny_recipe.parent, tmp_path_factory.mktemp("sd2") / "tiny"))
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "model")
    torch.manual_seed(1)
    unet = UNet2DConditionModel.from_config(dict(pipeline.unet.config) | {"use_linear_projection": True})
    pipeline.text_encoder.config.hidden_act = "gelu"
    StableDiffusionPipeline(**pipeline.components | {"unet": unet}, requires_safety_checker=False).save_pretrained(
        folder / "model"
    )
    return prepared_model(folder, tmp_path_factory.mktemp("scratch"))


def drawn_by_diffusers(pipeline: StableDiffusionPipeline, item: Item, *, guidance: float, **options: Any) -> np.ndarray:
    """Return the picture of diffusers' pipeline as a user calls it."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(item.seed)
    (image,) = pipeline(PROMPT, negative_prompt=NEGATIVE, guidance_scale=guidance, generator=generator, **options).images
    return np.asarray(image)


def compare(model: Model, folder: Path, sampler: Mapping[str, Any], scheduler: Any = None, **options: Any) -> None:
    """Assert that pictures with and without LoRA, guidance and negative prompt are within 2/255 of diffusers'. Those of four
    steps and more also differ from one another; a single leading step changes nothing that shows.
    """
    foundation = load_foundation(folder)
    pictures = []
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    if scheduler:
        pipeline.scheduler = scheduler(pipeline.scheduler.config)
    for adapter in (None, "first"):
        if adapter:
            pipeline.unet = with_adapters(pipeline.unet, {adapter: model.lora}, {adapter: 1.0})
        for guidance in (1.0, 3.0):
            item, pixels = drawn(model, foundation, task_of(model, sampler, guidance=guidance, adapter=adapter))
            expected = drawn_by_diffusers(pipeline, item, guidance=guidance, **options)
            assert max_abs_difference(pixels, expected) <= 2
            pictures.append(pixels)
    if sampler["steps"] >= 4:
        assert all(max_abs_difference(one, other) > 2 for i, one in enumerate(pictures) for other in pictures[:i])


OWN = {
    "DDIM, leading": {"_class_name": "DDIMScheduler"},
    "DDIM, trailing": {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"},
    "DDIM, linspace": {"_class_name": "DDIMScheduler", "timestep_spacing": "linspace"},
    "SD 2.1, v": {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
    "zero SNR, v, trailing": {
        "_class_name": "DDIMScheduler",
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
    },
    "x0, trailing": {"_class_name": "DDIMScheduler", "prediction_type": "sample", "timestep_spacing": "trailing"},
    "Euler, leading": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
    "Euler, unnamed": {"_class_name": "EulerDiscreteScheduler"},
    "SD-Turbo": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
    "Euler, v": {"_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    "LCM": {"_class_name": "LCMScheduler"},
    "LCM, v": {"_class_name": "LCMScheduler", "prediction_type": "v_prediction"},
}
SCHEMES = {"DDIMScheduler": "ddim", "EulerDiscreteScheduler": "ed", "LCMScheduler": "lcm"}


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("own", OWN)
def test_a_model_draws_what_its_own_scheduler_draws(sd2: Model, own: str, steps: int, tmp_path: Path) -> None:
    """No sampler of the recipe says anything: spacing and prediction come from the model."""
    config = SD15 | OWN[own]
    folder = sd2.scheduled(config, tmp_path)
    scheme = SCHEMES[str(config["_class_name"])]
    compare(sd2, folder, {"scheme": scheme, "steps": steps}, num_inference_steps=steps)


def _from(name: str, **options: object) -> Any:
    """Return a function from a scheduler's configuration to another scheduler, as model cards of LoRAs write it."""
    return lambda config: getattr(diffusers, name).from_config(config, **options)


SPEED_LORAS = {
    "Hyper-SD": ("ddim", {"spacing": "trailing"}, _from("DDIMScheduler", timestep_spacing="trailing")),
    "Lightning": ("ed", {"spacing": "trailing"}, _from("EulerDiscreteScheduler", timestep_spacing="trailing")),
    "linspace": ("ed", {"spacing": "linspace"}, _from("EulerDiscreteScheduler", timestep_spacing="linspace")),
    "LCM-LoRA": ("lcm", {}, _from("LCMScheduler")),
}


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("lora", SPEED_LORAS)
def test_a_speed_lora_draws_what_its_own_scheduler_draws(sd1: Model, lora: str, steps: int, tmp_path: Path) -> None:
    scheme, options, scheduler = SPEED_LORAS[lora]
    folder = sd1.scheduled(SD15, tmp_path)
    compare(sd1, folder, {"scheme": scheme, "steps": steps, **options}, scheduler, num_inference_steps=steps)


@pytest.mark.parametrize("timesteps", [(399,), (999, 499), (999, 749, 499, 249), (999, 874, 749, 624, 499, 374, 249, 124)])
@pytest.mark.parametrize(
    ("scheme", "scheduler"), [("lcm", "LCMScheduler"), ("ed", "EulerDiscreteScheduler"), ("tcd", "TCDScheduler")]
)
def test_listed_steps_draw_what_diffusers_draws_with_them(
    sd1: Model, scheme: str, scheduler: str, timesteps: tuple[int, ...], tmp_path: Path
) -> None:
    """DMD2 is used so, with the scheduler of LCM, and Hyper-SD with one step of TCD at eta 1."""
    folder = sd1.scheduled(SD15, tmp_path)
    eta = {"eta": 1.0 if len(timesteps) == 1 else 0.3} if scheme == "tcd" else {}
    sampler = {"scheme": scheme, "steps": len(timesteps), "timesteps": timesteps, **eta}
    own = _from(scheduler, **({"timestep_spacing": "leading"} if scheme == "ed" else {}))
    compare(sd1, folder, sampler, own, timesteps=list(timesteps), **eta)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_reference_draws_the_negative_prompt(sd1: Model, guidance: float, tmp_path: Path) -> None:
    folder = sd1.scheduled({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}, tmp_path)
    foundation = load_foundation(folder)
    task = task_of(sd1, {"scheme": "ed", "steps": 4}, guidance=guidance, adapter=None)
    item, pixels = drawn(sd1, foundation, task)
    table = fixed_table(task, foundation)
    assert table
    reference = reference_for(foundation, task, table, {})
    assert max_abs_difference(np.asarray(reference.render(item)), pixels) <= 2
    empty = replace(item, negative_prompt="", negative_tokens=foundation.tokenize(""))
    assert (max_abs_difference(np.asarray(reference.render(empty)), pixels) > 2) is (guidance > 1)
