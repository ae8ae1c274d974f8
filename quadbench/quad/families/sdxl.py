"""Stable Diffusion XL, also SSD-1B and Vega: two CLIPs, their pooled text, and the picture's size. It does not import torch."""

from quadbench.artifacts.bundle import TaskKind
from quadbench.quad.families.family import Condition, Family, FamilyName, ModuleClass, PooledState, Source, TextEncoder
from quadbench.quad.families.sd1 import SD1

_PENULTIMATE = -2


def time_ids(height: int, width: int) -> tuple[float, ...]:
    """Return the numbers that SDXL embeds of a picture: original size, corner of the crop, target size (arXiv 2307.01952)."""
    return height, width, 0, 0, height, width


SDXL = Family(
    name=FamilyName.SDXL,
    pipelines={
        TaskKind.TEXT_TO_IMAGE: "StableDiffusionXLPipeline",
        TaskKind.IMAGE_TO_IMAGE: "StableDiffusionXLImg2ImgPipeline",
        TaskKind.INPAINT: "StableDiffusionXLInpaintPipeline",
    },
    modules={
        **SD1.modules,
        "text_encoder_2": ModuleClass(library="transformers", name="CLIPTextModelWithProjection"),
    },
    encoders=(
        TextEncoder(
            part="text_encoder",
            tokenizer="tokenizer",
            tokens="input_ids",
            output="encoder_hidden_states",
            layer=_PENULTIMATE,
        ),
        TextEncoder(
            part="text_encoder_2",
            tokenizer="tokenizer_2",
            tokens="input_ids_2",
            output="encoder_hidden_states",
            layer=_PENULTIMATE,
            pooled=PooledState(output="text_embeds", end="end_2"),
        ),
    ),
    conditions=(
        *SD1.conditions,
        Condition(name="text_embeds", source=Source.PROMPT, argument="added_cond_kwargs.text_embeds"),
        Condition(
            name="size_features",
            source=Source.TASK,
            argument="added_cond_kwargs.time_ids",
            module="add_time_proj",
            numbers=time_ids,
        ),
    ),
    text_width=2048,
    holds=lambda _unet: True,
    without={"add_watermarker": False},
    added="text_time",
    zeros_key="force_zeros_for_empty_prompt",
)
