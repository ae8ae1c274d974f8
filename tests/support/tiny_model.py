"""A random but fixed latent diffusion model of a few thousand weights, with two adapters and inputs, that builds quickly."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from quadbench import zoo

SIZE = 16  # pixels; latents are 8 x 8
ADAPTERS = {
    "first": {"r": 4, "lora_alpha": 4, "target_modules": ["to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in"]},
    "second": {"r": 6, "lora_alpha": 3, "target_modules": ["to_q", "conv2", "ff.net.0.proj", "conv_shortcut"]},
}

RECIPE = """\
schema_version: 1
name: tiny
foundation: {source: diffusers, path: model}
adapters:
  first: {source: peft, path: adapters/first}
  second: {source: peft, path: adapters/second}
tasks:
  - name: change
    kind: image-to-image
    adapter: first
    sampler: {scheme: olss, steps: 4}
    guidance: 2.0
    strength: 0.7
    inputs: {source: folder, path: inputs}
  - name: fill
    kind: inpaint
    adapter: second
    sampler: {scheme: lcm, steps: 2}
    inputs: {source: folder, path: inputs}
  - name: imagine
    kind: text-to-image
    adapter: null
    sampler: {scheme: ed, steps: 3}
    guidance: 2.0
    prompts: [noto apple, twemoji pear]
precision: {weights: int8, activations: {scheme: w8a16}, lora: int16}
quad:
  profile: {scheme: unified, headroom: 1.0, gauge: true}
  calibration: {scheme: joint, samples: 1}
baselines: [per-graph]
runtime: {threads: 1}
measure: {warmup: 0, iterations: 2, launches: 1, switches: 2, order: abba, timeout_s: 120}
"""


def write_tiny_model(folder: Path) -> Path:
    """Fill a folder with model, adapters, inputs and recipe.yaml. Return the recipe's path."""
    torch.manual_seed(0)
    unet = tiny_unet()
    _pipeline(unet).save_pretrained(folder / "model")
    for name, options in ADAPTERS.items():
        write_adapter(unet, folder / "adapters" / name, **options)
    _write_inputs(folder / "inputs")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def copy_with_one_task(recipe: Path, folder: Path, **measure: int) -> Path:
    """Copy the tiny model, with a recipe of its inpainting and that adapter alone, measured so. Return the recipe's path."""
    shutil.copytree(recipe.parent, folder)
    document = yaml.safe_load(recipe.read_text())
    document |= {"baselines": [], "tasks": [task for task in document["tasks"] if task["name"] == "fill"]}
    document["adapters"] = {"second": document["adapters"]["second"]}
    document["measure"] |= measure
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def write_adapter(unet: UNet2DConditionModel, folder: Path, **options: object) -> None:
    """Write an adapter with random weights in both factors, as PEFT saves it."""
    model = get_peft_model(copy.deepcopy(unet), LoraConfig(init_lora_weights=False, **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data *= 0.2
    model.save_pretrained(folder)


def tiny_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def _pipeline(unet: UNet2DConditionModel) -> StableDiffusionPipeline:
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=SIZE,
        scaling_factor=0.5,
    )
    tokenizer = CLIPTokenizer.from_pretrained(zoo.foundation_folder("emoji-ldm") / "tokenizer")
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text_config),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _write_inputs(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[4:12, 6:14] = 255
    entries = []
    for i in range(3):
        pixels = rng.integers(0, 255, (2, 2, 3), np.uint8).repeat(SIZE // 2, 0).repeat(SIZE // 2, 1)
        colours, grey = ("RGBA", "RGB") if i == 1 else ("RGB", "L")  # painting programs save these too
        Image.fromarray(pixels).convert(colours).save(folder / f"{i}.png")
        Image.fromarray(mask).convert(grey).save(folder / f"{i}.mask.png")
        entries.append({"name": f"{i:03d}", "image": f"{i}.png", "mask": f"{i}.mask.png", "prompt": "noto apple"})
    (folder / "inputs.json").write_text(json.dumps(entries))
