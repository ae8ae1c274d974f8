"""Stable Diffusion 1.x: a U-Net that takes a latent, the time step and the hidden states of CLIP. It does not import torch."""

from quadbench.artifacts.bundle import TaskKind
from quadbench.quad.families.family import Condition, Family, FamilyName, ModuleClass, Source, TextEncoder

SD1 = Family(
    name=FamilyName.SD1,
    pipelines={
        TaskKind.TEXT_TO_IMAGE: "StableDiffusionPipeline",
        TaskKind.IMAGE_TO_IMAGE: "StableDiffusionImg2ImgPipeline",
        TaskKind.INPAINT: "StableDiffusionInpaintPipeline",
    },
    modules={
        "unet": ModuleClass(library="diffusers", name="UNet2DConditionModel"),
        "vae": ModuleClass(library="diffusers", name="AutoencoderKL"),
        "text_encoder": ModuleClass(library="transformers", name="CLIPTextModel"),
    },
    encoders=(TextEncoder(part="text_encoder", tokenizer="tokenizer", tokens="input_ids", output="encoder_hidden_states"),),
    conditions=(
        Condition(name="time_features", source=Source.STEP, argument="timestep", module="time_proj"),
        Condition(name="encoder_hidden_states", source=Source.PROMPT, argument="encoder_hidden_states"),
    ),
    text_width=768,
    holds=lambda unet: not unet.get("use_linear_projection"),
    without={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
)
