"""Stable Diffusion XL: float graphs draw what diffusers' own pipeline draws, and its LoRA files are read at all of its sites."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

torch = pytest.importorskip("torch")

from accelerate import init_empty_weights  # noqa: E402
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel  # noqa: E402
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from support.adapter_files import ALL_KINDS, draw_pairs, kohya_name, kohya_tensors, load  # noqa: E402
from support.float_pictures import NEGATIVE, PROMPT, Model, drawn, prepared_model, task_of  # noqa: E402
from support.ldm_checkpoint import ldm_name  # noqa: E402
from support.sentences import raising, says  # noqa: E402
from support.tiny_xl import VEGA, tiny_unet, write_tiny_xl  # noqa: E402
from support.watcher import Silent  # noqa: E402

from quadbench import pipeline  # noqa: E402
from quadbench.artifacts import Component, Status, Variant  # noqa: E402
from quadbench.artifacts.pixels import max_abs_difference  # noqa: E402
from quadbench.cli import main  # noqa: E402
from quadbench.devices.addresses import parse_addresses  # noqa: E402
from quadbench.errors import UserError  # noqa: E402
from quadbench.pipeline import RunOutcome  # noqa: E402
from quadbench.quad.adapters.loading import match_sites, read_adapter, sites_of_unet  # noqa: E402
from quadbench.quad.inputs import check_references, read_recipe  # noqa: E402
from quadbench.quad.items import Encoders, fixed_table, prepare_task, task_items  # noqa: E402
from quadbench.quad.model.float_graphs import specs  # noqa: E402
from quadbench.quad.model.foundation import load_foundation  # noqa: E402
from quadbench.quad.model_files import AdapterFormat, AdapterSource  # noqa: E402
from quadbench.quad.prepare import merged_unet  # noqa: E402
from quadbench.quad.reference import reference_for, with_adapters  # noqa: E402
from quadbench.quad.runner import GraphSession  # noqa: E402
from quadbench.recipe import Task  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402

KINDS = ("image-to-image", "inpaint", "text-to-image")
EULER = {"_class_name": "EulerDiscreteScheduler", "steps_offset": 1, "timestep_spacing": "leading"}
TRAILING = {**EULER, "timestep_spacing": "trailing"}
SDXL = {  # of stabilityai/stable-diffusion-xl-base-1.0
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.fixture(scope="module", params=[{}, VEGA], ids=["SDXL", "Vega"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny Stable Diffusion XL with its float graphs, and one without middle block."""
    folder = tmp_path_factory.mktemp("xl")
    write_tiny_xl(folder, **request.param)
    return prepared_model(folder, tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of a tiny Stable Diffusion XL. Not to be changed."""
    return write_tiny_xl(tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="module")
def run(recipe: Path, harness: Path, tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    """A run on this machine of a W8A16 build: guidance with an absent negative prompt, and a task without guidance."""
    layout = Layout(tmp_path_factory.mktemp("results"))
    return pipeline.run(load_recipe(recipe), parse_addresses(["local"]), layout=layout, observer=Silent())


def samples(run: RunOutcome, variant: Variant, metric: str) -> list[float]:
    (record,) = (record for record in run.result.records if record.variant is variant)
    assert (record.status, record.reason) == (Status.OK, None)
    wanted = (one for one in record.samples if one.metric == metric and one.labels.get("against", "reference") == "reference")
    return [one.value for one in wanted]


@pytest.mark.slow
def test_the_harness_draws_the_pictures_of_diffusers_with_the_float_graphs(run: RunOutcome) -> None:
    assert [item.negative_tokens for task in run.result.bundle.tasks for item in task.items] == [None, None]
    differences = samples(run, Variant.FLOAT, "max_abs_difference")
    assert len(differences) == 2
    assert max(differences) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("variant", [Variant.SHARED, Variant.PER_GRAPH])
def test_a_w8a16_build_is_near_the_pictures_of_diffusers(run: RunOutcome, variant: Variant) -> None:
    psnr_db = samples(run, variant, "psnr_db")
    assert len(psnr_db) == 2
    assert min(psnr_db) > 40


@pytest.mark.slow
@pytest.mark.parametrize("zeros", [True, False], ids=["zeros", "text"])
@pytest.mark.parametrize(("scheduler", "steps"), [(EULER, 4), (TRAILING, 1), (TRAILING, 2), (TRAILING, 8)])
def test_float_graphs_draw_what_the_pipeline_of_diffusers_draws(
    model: Model, scheduler: dict[str, object], steps: int, zeros: bool, tmp_path: Path
) -> None:
    """With and without LoRA and guidance, with an absent, an empty and a negative prompt."""
    folder = model.scheduled(scheduler, tmp_path)
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"force_zeros_for_empty_prompt": zeros}))
    foundation = load_foundation(folder)
    theirs = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    theirs.set_progress_bar_config(disable=True)
    pictures = {}
    for adapter in (None, "first"):
        if adapter:
            theirs.unet = with_adapters(theirs.unet, {adapter: model.lora}, {adapter: 1.0})
        for guidance, negative in ((1.0, None), (3.0, None), (3.0, ""), (3.0, NEGATIVE)):
            task = task_of(model, {"scheme": "ed", "steps": steps}, guidance=guidance, adapter=adapter)
            item, pixels = drawn(model, foundation, task, negative)
            generator = torch.Generator().manual_seed(item.seed)
            options = {"negative_prompt": negative, "guidance_scale": guidance, "num_inference_steps": steps}
            (image,) = theirs(PROMPT, generator=generator, **options).images
            assert max_abs_difference(pixels, np.asarray(image)) <= 2
            pictures[adapter, guidance, negative] = pixels
    if steps == 8:
        same = [] if zeros else [{(adapter, 3.0, None), (adapter, 3.0, "")} for adapter in (None, "first")]
        for one in pictures:
            for other in pictures:
                if one != other:
                    assert (max_abs_difference(pictures[one], pictures[other]) > 2) is ({one, other} not in same)


def test_lora_as_input_gives_what_lora_merged_gives(model: Model, tmp_path: Path) -> None:
    prepared = model.prepared
    (adapter,) = prepared.adapters.values()
    merged = GraphSession(merged_unet(prepared, adapter, tmp_path))
    generator = torch.Generator().manual_seed(0)
    lora = prepared.feed(adapter)
    shapes = {spec.name: spec.shape for spec in specs(prepared.models[Component.UNET].graph.input) if spec.name not in lora}
    feed = {name: torch.randn(shape, generator=generator).numpy() for name, shape in shapes.items()}
    expected = merged(feed)
    torch.testing.assert_close(prepared.unet(feed | lora), expected, atol=1e-5, rtol=0)
    assert (prepared.unet(feed | prepared.feed(None)) - expected).abs().max() > 0.01


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_is_what_the_components_draw(recipe: Path, kind: str, guidance: float, tiny_recipe: Path) -> None:
    spec: dict[str, Any] = {"name": "it", "kind": kind, "adapter": None, "guidance": guidance}
    spec |= {"sampler": {"scheme": "ed", "steps": 4}, "inputs": {"source": "folder", "path": tiny_recipe.parent / "inputs"}}
    if kind != "text-to-image":
        spec["strength"] = 0.5
    task: Task = TypeAdapter(Task).validate_python(spec)
    foundation = load_foundation(recipe.parent / "model")
    items = task_items(task, foundation, calibration_samples=1)
    encoders = Encoders(foundation=foundation, text_encoder=None, vae_encoder=None)  # type: ignore[arg-type]  # only OLSS asks
    reference = reference_for(foundation, task, prepare_task(task, items, encoders, None, {}).table, {})  # type: ignore[arg-type]
    with torch.no_grad():
        expected, got = reference._run_pipeline(items.evaluation[0]), reference._run_components(items.evaluation[0])
    torch.testing.assert_close(got.clamp(-1, 1), expected, atol=2e-3, rtol=1e-3)
    assert fixed_table(task, foundation) == reference.table


def test_the_pooled_text_is_that_of_the_first_end_token(recipe: Path) -> None:
    foundation = load_foundation(recipe.parent / "model")
    end = foundation.tokenizers["tokenizer_2"].eos_token_id
    encoder = foundation.family.encoders[1]
    assert foundation.encoder_inputs(encoder, (0, 5, end, end))["end_2"] == (0, 0, 1, 0)


ADDED = ("add_embedding.linear_1", "add_embedding.linear_2")


def test_files_of_kohya_and_diffusers_give_the_same_adapter(tmp_path: Path) -> None:
    unet = tiny_unet()
    config = LoraConfig(r=3, lora_alpha=6, target_modules=[*ALL_KINDS, *ADDED], init_lora_weights=False)
    adapted = inject_adapter_in_model(config, copy.deepcopy(unet))
    StableDiffusionXLPipeline.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(adapted))
    diffusers = tmp_path / "pytorch_lora_weights.safetensors"
    tensors = {}
    for site, pair in load(diffusers, unet).pairs.items():
        name = f"lora_unet_{flat_ldm_name(site, unet)}"
        tensors |= {f"{name}.lora_down.weight": pair.down, f"{name}.lora_up.weight": pair.up, f"{name}.alpha": torch.tensor(3.0)}
    assert {"lora_unet_label_emb_0_0.alpha", "lora_unet_label_emb_0_2.alpha"} <= tensors.keys()
    save_file(tensors, tmp_path / "kohya.safetensors")
    one, other = load(diffusers, unet), load(tmp_path / "kohya.safetensors", unet)
    assert one.pairs.keys() == other.pairs.keys()
    for site, pair in one.pairs.items():
        torch.testing.assert_close((other.pairs[site].down, other.pairs[site].up), (pair.down, pair.up), rtol=0, atol=0)


@pytest.mark.parametrize("has_own_names", [True, False], ids=["LDM", "diffusers"])
def test_a_reference_loads_the_sites_of_added_conditions(has_own_names: bool, tmp_path: Path) -> None:
    unet = tiny_unet()
    known = draw_pairs(unet, ADDED, alphas=(3.0,))
    names = {site: f"lora_unet_{flat_ldm_name(site, unet)}" if has_own_names else kohya_name(site) for site in known}
    save_file(kohya_tensors(known, names=names), tmp_path / "kohya.safetensors")
    source = AdapterSource(format=AdapterFormat.KOHYA, path=tmp_path / "kohya.safetensors")
    adapted = with_adapters(unet, {"style": source}, {"style": 1.0})
    for site in ADDED:
        torch.testing.assert_close(adapted.get_submodule(site).get_delta_weight("style"), known[site].delta)


def flat_ldm_name(site: str, unet: UNet2DConditionModel) -> str:
    return ldm_name(f"{site}.weight", unet).removesuffix(".weight").replace(".", "_")


@pytest.mark.parametrize("is_ldm", [True, False], ids=["LDM", "diffusers"])
def test_all_sites_of_sdxl_are_found_by_the_names_of_kohya(is_ldm: bool) -> None:
    with init_empty_weights():
        unet = UNet2DConditionModel(**SDXL)
    base = sites_of_unet(unet)
    named = {flat_ldm_name(site, unet) if is_ldm else site.replace(".", "_"): site for site in base.slots}
    assert len(named) == len(base.slots) == 794
    assert match_sites("style", named, base) == named


def test_a_file_with_all_sites_of_sdxl_is_read(tmp_path: Path) -> None:
    tensors = {f"lora_unet_site_{i}.lora_{side}.weight": torch.ones(1, 1) for i in range(794) for side in ("down", "up")}
    save_file(tensors, tmp_path / "all.safetensors")
    reading = read_adapter("all", tmp_path / "all.safetensors").reading
    assert (len(reading.pairs), reading.problems) == (794, ())


def test_a_check_names_the_family(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "check", str(recipe)]) == 0
    says(capsys.readouterr().out, "Stable Diffusion XL", "epsilon", "leading")


FAULTS = {
    "unet/config.json": [
        ({"addition_embed_type": None}, ("addition_embed_type", "text_time")),
        ({"projection_class_embeddings_input_dim": 60}, (60, 20, "6 x 8")),
        ({"addition_time_embed_dim": "many"}, ("many",)),
    ],
    "model_index.json": [
        ({"force_zeros_for_empty_prompt": "often"}, ("force_zeros_for_empty_prompt", "often")),
        ({"text_encoder": [None, None]}, ("text_encoder", "CLIPTextModel")),
        ({"_class_name": "StableDiffusionXLControlNetPipeline"}, ("Stable Diffusion XL", "StableDiffusionXLPipeline")),
    ],
}


@pytest.mark.parametrize(("file", "changes", "named"), [(file, *fault) for file, faults in FAULTS.items() for fault in faults])
def test_a_folder_that_the_graph_does_not_fit_is_refused(
    file: str, changes: dict[str, object], named: tuple[object, ...], tmp_path: Path
) -> None:
    path = write_tiny_xl(tmp_path).parent / "model" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with raising(UserError, *named):
        check_references(read_recipe(tmp_path / "recipe.yaml"))
