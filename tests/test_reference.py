"""The float reference: what diffusers' own pipelines draw is what its components draw under the task's table."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

torch = pytest.importorskip("torch")

from quadbench import zoo  # noqa: E402
from quadbench.artifacts.pixels import max_abs_difference  # noqa: E402
from quadbench.quad.items import Encoders, Item, prepare_task, task_items  # noqa: E402
from quadbench.quad.model.foundation import Foundation, load_foundation  # noqa: E402
from quadbench.quad.model_files import AdapterFormat, AdapterSource  # noqa: E402
from quadbench.quad.reference import Reference, reference_for, with_adapters  # noqa: E402
from quadbench.recipe import Task  # noqa: E402

KINDS = {"image-to-image": (1.0, 0.5), "inpaint": (1.0, 0.5), "text-to-image": (None,)}
SCHEMES = ("lcm", "ed", "ddim", "tcd")
CASES = [(kind, scheme, strength) for kind, strengths in KINDS.items() for scheme in SCHEMES for strength in strengths]
SPACINGS = ({"spacing": "trailing"}, {"spacing": "linspace"}, {"timesteps": (999, 749, 499, 249)})
SCHEDULES = {
    "v": {"prediction_type": "v_prediction"},
    "x0": {"prediction_type": "sample"},
    "zero SNR": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    "flow": {"prediction_type": "flow_prediction", "shift": 3.0},
}


def case_of(
    tiny_recipe: Path, foundation: Foundation, kind: str, scheme: str, strength: float | None, **options: Any
) -> tuple[Reference, Item]:
    """Return the reference of a task without adapter, and its first item."""
    inputs = {"prompts": ("noto apple",)} if strength is None else {"inputs": {"source": "folder", "path": Path("inputs")}}
    spec: dict[str, Any] = {
        "name": "it",
        "kind": kind,
        "adapter": None,
        "sampler": {"scheme": scheme, "steps": 4},
        **inputs,
        **options,
    }
    if strength is not None:
        spec["strength"] = strength
    task: Task = TypeAdapter(Task).validate_python(spec, context={"folder": tiny_recipe.parent})
    items = task_items(task, foundation, calibration_samples=1)
    encoders = Encoders(foundation=foundation, text_encoder=None, vae_encoder=None)  # type: ignore[arg-type]  # only OLSS asks
    prepared = prepare_task(task, items, encoders, None, {})  # type: ignore[arg-type]
    return reference_for(foundation, task, prepared.table, {}), items.evaluation[0]


@pytest.mark.parametrize(("kind", "scheme", "strength"), CASES)
def test_a_pipeline_of_diffusers_draws_what_the_table_draws(
    tiny_recipe: Path, foundation: Foundation, kind: str, scheme: str, strength: float | None
) -> None:
    reference, item = case_of(tiny_recipe, foundation, kind, scheme, strength)
    with torch.no_grad():
        expected, drawn = reference._run_pipeline(item), reference._run_components(item).clamp(-1, 1)
    torch.testing.assert_close(drawn, expected, atol=2e-3, rtol=1e-3)


def _agree(reference: Reference, item: Item) -> None:
    """Assert that diffusers' pipeline draws what the components draw under the table."""
    with torch.no_grad():
        expected, drawn = reference._run_pipeline(item), reference._run_components(item).clamp(-1, 1)
    torch.testing.assert_close(drawn, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("options", SPACINGS, ids=lambda options: next(iter(options.values())))
@pytest.mark.parametrize(("kind", "scheme", "strength"), CASES)
def test_spaced_and_listed_steps_draw_what_the_table_draws(
    tiny_recipe: Path, foundation: Foundation, kind: str, scheme: str, strength: float | None, options: dict[str, object]
) -> None:
    takes = ("ed", "ddim") if "spacing" in options else ("ed", "lcm", "tcd")
    scheme = scheme if scheme in takes else "ed"
    sampler = {"scheme": scheme, "steps": 4, **options}
    _agree(*case_of(tiny_recipe, foundation, kind, scheme, strength, sampler=sampler))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("kind", "scheme", "strength"), CASES)
def test_predictions_of_all_kinds_draw_what_the_table_draws(
    tiny_recipe: Path, kind: str, scheme: str, strength: float | None, schedule: str
) -> None:
    scheme = "ed" if schedule == "flow" else scheme
    foundation = load_foundation(tiny_recipe.parent / "model", SCHEDULES[schedule])
    _agree(*case_of(tiny_recipe, foundation, kind, scheme, strength))


@pytest.mark.parametrize("scheme", ["lcm", "ed"])
def test_an_inpainted_reference_is_what_a_pipeline_of_diffusers_draws_with_its_overlay(
    tiny_recipe: Path, foundation: Foundation, scheme: str
) -> None:
    reference, item = case_of(tiny_recipe, foundation, "inpaint", scheme, 1.0)
    assert item.image_path
    assert item.blend
    pipeline, latent = reference._pipeline(), reference.latent(item)
    with torch.no_grad():
        (decoded,) = pipeline(
            item.prompt,
            image=latent,
            mask_image=item.mask,
            masked_image_latents=latent,
            num_inference_steps=4,
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(item.seed),
        ).images
    overlaid = pipeline.image_processor.apply_overlay(item.blend, Image.open(item.image_path).convert("RGB"), decoded)
    drawn = np.asarray(reference.render(item))
    assert max_abs_difference(drawn, np.asarray(overlaid)) <= 1
    assert max_abs_difference(drawn, np.asarray(decoded)) > 20


def test_an_inpainted_reference_is_the_decoders_where_nothing_is_composited(tiny_recipe: Path, foundation: Foundation) -> None:
    kept, item = case_of(tiny_recipe, foundation, "inpaint", "lcm", 1.0, composite=False)
    assert item.blend is None
    composited, other = case_of(tiny_recipe, foundation, "inpaint", "lcm", 1.0)
    apart = np.abs(np.asarray(kept.render(item)).astype(int) - np.asarray(composited.render(other))).max(axis=2)
    assert apart[np.asarray(other.blend) == 255].max() == 0
    assert apart.max() > 20


def test_an_adapter_that_names_its_model_goes_into_a_copy_of_it_without_a_warning() -> None:
    unet = load_foundation(zoo.foundation_folder("emoji-ldm")).unet
    source = AdapterSource(format=AdapterFormat.PEFT, path=zoo.adapter_folder("portrait"))
    adapted = with_adapters(unet, {"portrait": source}, {"portrait": 1.0})
    assert any(name.endswith(".lora_A.portrait.weight") for name in adapted.state_dict())
