"""A random but fixed Stable Diffusion XL of a few thousand weights, with two adapters, that builds quickly."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from quadbench import zoo
from support.tiny_model import ADAPTERS, SIZE, write_adapter

WIDTHS, PROJECTED, SIZE_CHANNELS = (16, 24), 20, 8
VEGA: dict[str, Any] = {  # as SSD-1B and Vega: no middle block, and other numbers of transformer blocks on the way up
    "mid_block_type": None,
    "transformer_layers_per_block": (1, 2),
    "reverse_transformer_layers_per_block": ((2, 1), (1, 1)),
}

RECIPE = """\
schema_version: 1
name: tiny-xl
foundation: {source: diffusers, path: model}
adapters:
  first: {source: peft, path: adapters/first}
  second: {source: peft, path: adapters/second}
tasks:
  - name: imagine
    kind: text-to-image
    adapter: first
    sampler: {scheme: ed, steps: 2}
    guidance: 2.0
    prompts: [noto apple]
  - name: again
    kind: text-to-image
    adapter: second
    sampler: {scheme: lcm, steps: 2}
    prompts: [twemoji pear]
precision: {weights: int8, activations: {scheme: w8a16}, lora: int16}
quad:
  profile: {scheme: unified, headroom: 1.0, gauge: true}
  calibration: {scheme: joint, samples: 1}
baselines: [per-graph]
runtime: {threads: 1}
measure: {warmup: 0, iterations: 2, launches: 1, switches: 2, order: abba, timeout_s: 120}
"""


def write_tiny_xl(folder: Path, **unet_options: Any) -> Path:
    """Fill a folder with model, adapters and recipe.yaml. Return the recipe's path."""
    torch.manual_seed(0)
    unet = tiny_unet(**unet_options)
    _pipeline(unet).save_pretrained(folder / "model")
    for name, options in ADAPTERS.items():
        write_adapter(unet, folder / "adapters" / name, **options)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def tiny_unet(**options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **{
            "sample_size": SIZE // 2,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "cross_attention_dim": sum(WIDTHS),
            "attention_head_dim": (2, 4),
            "use_linear_projection": True,
            "norm_num_groups": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": SIZE_CHANNELS,
            "projection_class_embeddings_input_dim": 6 * SIZE_CHANNELS + PROJECTED,
            **options,
        }
    ).eval()


def _pipeline(unet: UNet2DConditionModel) -> StableDiffusionXLPipeline:
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=SIZE,
        scaling_factor=0.13025,
    )
    first = CLIPTokenizer.from_pretrained(zoo.foundation_folder("emoji-ldm") / "tokenizer")
    second = CLIPTokenizer.from_pretrained(zoo.foundation_folder("emoji-ldm") / "tokenizer", pad_token="!")
    configs = [
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=PROJECTED,
        )
        for tokenizer, width in zip((first, second), WIDTHS, strict=True)
    ]
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(configs[0]),
        text_encoder_2=CLIPTextModelWithProjection(configs[1]),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )
