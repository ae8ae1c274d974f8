"""Geometry: the name of a published model -> its configuration as data, its tokenizer, and its modules with random weights.

`geometries/NAME` is a diffusers folder without weights. A part that it lacks is taken from Stable Diffusion 1.5, from which the
others were cut.
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from quadbench.quad.layouts import CHECKPOINT_GEOMETRY, part_folder
from quadbench.quad.sources import GEOMETRIES


def random_module(geometry: str, part: str, seed: int) -> nn.Module:
    """Return a part as its library initializes it: the same for the same seed. Others' random numbers stay as they are."""
    folder = part_folder(geometry, part)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match part:
            case "unet":
                return UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder, local_files_only=True))
            case "vae":
                return AutoencoderKL.from_config(AutoencoderKL.load_config(folder, local_files_only=True))
            case "text_encoder":
                return CLIPTextModel(CLIPTextConfig.from_pretrained(folder, local_files_only=True))
            case _:
                raise ValueError(f"'{part}' has no weights")


def clip_tokenizer() -> CLIPTokenizer:
    """Return CLIP's own tokenizer, 49408 tokens, T = 77. Its vocabulary follows from its merges, so only those are stored."""
    lines = (GEOMETRIES / CHECKPOINT_GEOMETRY / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    characters = sorted(ByteLevel.alphabet())
    words = [*characters, *(f"{c}</w>" for c in characters), *(left + right for left, right in merges)]
    vocabulary = {word: i for i, word in enumerate((*words, "<|startoftext|>", "<|endoftext|>"))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
