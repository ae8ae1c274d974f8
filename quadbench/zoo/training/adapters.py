"""Adapters: a frozen base model -> PEFT LoRA folders.

They differ in sites, rank, alpha and, for `portrait`, in how the two make the scale. `image_to_image.py`, `removal.py` and
`stickers.py` know what each is trained on.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import CLIPTextModel, CLIPTokenizer

from quadbench.zoo.training import loop, text_to_image

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
PROJECTIONS = ["proj_in", "proj_out"]
FEED_FORWARD = ["ff.net.0.proj", "ff.net.2"]
CONVOLUTIONS = ["conv1", "conv2"]
LORA = {
    "restyle": LoraConfig(r=16, lora_alpha=16, target_modules=[*ATTENTION, *PROJECTIONS, *CONVOLUTIONS]),
    "remove-object": LoraConfig(
        r=24, lora_alpha=12, target_modules=[*ATTENTION, *PROJECTIONS, *CONVOLUTIONS, *FEED_FORWARD, "conv_shortcut"]
    ),
    "sketch-to-image": LoraConfig(r=16, lora_alpha=24, target_modules=[*ATTENTION, *PROJECTIONS, *CONVOLUTIONS, "conv_shortcut"]),
    "sticker": LoraConfig(r=8, lora_alpha=16, target_modules=[*ATTENTION, *FEED_FORWARD, *CONVOLUTIONS]),
    "portrait": LoraConfig(r=12, lora_alpha=6, use_rslora=True, target_modules=[*ATTENTION, *CONVOLUTIONS, "conv_shortcut"]),
}
BATCH = {"restyle": 64, "remove-object": 64, "consistency": 64, "sketch-to-image": 32, "sticker": 32, "portrait": 32}
LEARNING_RATE = {
    "restyle": 2e-3, "remove-object": 3e-3, "consistency": 3e-4, "sketch-to-image": 2e-3, "sticker": 1.5e-3, "portrait": 2e-3,
}  # fmt: skip
STEPS = {"restyle": 400, "remove-object": 300, "consistency": 60, "sketch-to-image": 400, "sticker": 600, "portrait": 400}
SEED = {"restyle": 2, "remove-object": 3, "consistency": 4, "sketch-to-image": 6, "sticker": 7, "portrait": 8}


@dataclass(frozen=True, kw_only=True)
class Base:
    """The frozen modules."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel

    @torch.no_grad()
    def states(self, texts: list[str]) -> torch.Tensor:
        """Text encoder states (N, 16, 128)."""
        return self.text_encoder(text_to_image.token_ids(self.tokenizer, texts)).last_hidden_state


def attach(unet: UNet2DConditionModel, name: str) -> PeftModel:
    """A copy of the U-Net with fresh trainable LoRA weights."""
    torch.manual_seed(SEED[name])
    return get_peft_model(copy.deepcopy(unet).requires_grad_(False), LORA[name])


def draw(name: str, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch: which of `count` pictures, and for each 1 where it is mirrored, else 0."""
    size = BATCH[name]
    return torch.randint(count, (size,), generator=generator), torch.randint(2, (size,), generator=generator)


def draw_prompts(states: list[torch.Tensor], empty: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One of each picture's captions (names, 16, 128), now and then the empty one, for guidance -> (N, 16, 128)."""
    words = torch.stack([captions[int(torch.randint(len(captions), (1,), generator=generator))] for captions in states])
    dropped = torch.rand(len(words), generator=generator) < text_to_image.CAPTION_DROPOUT
    return torch.where(dropped[:, None, None], empty, words)


def fit(model: PeftModel, name: str, loss_of_batch: loop.LossFunction, folder: Path, minutes: float, **more: object) -> None:
    """Train the LoRA weights and load their average."""
    ema = loop.train(
        {"lora": model},
        loss_of_batch,
        folder=folder,
        steps=STEPS[name],
        learning_rate=LEARNING_RATE[name],
        seed=SEED[name],
        minutes=minutes,
        warmup=30,
        ema_decay=0.98,
        **more,  # type: ignore[arg-type]
    )
    model.load_state_dict(ema["lora"], strict=False)


def save(model: PeftModel, folder: Path) -> None:
    """adapter_config.json and adapter_model.safetensors, in half precision and without a path of this machine."""
    copy.deepcopy(model).half().save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": "emoji-ldm", "target_modules": sorted(config["target_modules"]), "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
