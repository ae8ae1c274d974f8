"""Export: trained modules -> a diffusers folder in half precision that StableDiffusionPipeline loads."""

import copy
import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from training import loop, noise
from training.adapters import FrozenBase

LIMIT_BYTES = 17_000_000


def save(base: FrozenBase, folder: Path) -> None:
    """Replace `folder` by model_index.json, vae/, unet/, text_encoder/, tokenizer/ and scheduler/."""
    temporary = folder.with_name(folder.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline = StableDiffusionPipeline(
        vae=copy.deepcopy(base.vae).half(),
        text_encoder=copy.deepcopy(base.text_encoder).half(),
        tokenizer=base.tokenizer,
        unet=copy.deepcopy(base.unet).half(),
        scheduler=noise.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(temporary)
    base.tokenizer.backend_tokenizer.model.save(str(temporary / "tokenizer"))
    for path in temporary.rglob("*.json"):
        _forget_where_it_came_from(path)
    size = sum(path.stat().st_size for path in temporary.rglob("*.safetensors"))
    if size >= LIMIT_BYTES:
        raise ValueError(f"the weights take {size} bytes; the limit is {LIMIT_BYTES}")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def load(folder: Path) -> FrozenBase:
    """The exported modules in float32, where training runs."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32)
    pipeline.to(loop.device())
    return FrozenBase(tokenizer=pipeline.tokenizer, text_encoder=pipeline.text_encoder, vae=pipeline.vae, unet=pipeline.unet)


def _forget_where_it_came_from(path: Path) -> None:
    content = json.loads(path.read_text())
    if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(content, indent=2) + "\n")
