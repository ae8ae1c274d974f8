"""Adapters: a frozen base model -> PEFT LoRA folders.

They differ in sites, rank, alpha and, for `portrait`, in how the two make the scale. `image_to_image.py`, `removal.py` and
`stickers.py` know what each is trained on.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import CLIPTextModel, CLIPTokenizer

from training import captions, loop, text_to_image

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
PROJECTIONS = ["proj_in", "proj_out"]
FEED_FORWARD = ["ff.net.0.proj", "ff.net.2"]
CONVOLUTIONS = ["conv1", "conv2"]
LORA = {
    "restyle": LoraConfig(r=16, lora_alpha=16, target_modules=[*ATTENTION, *PROJECTIONS, *CONVOLUTIONS]),
    "remove-object": LoraConfig(
        r=20, lora_alpha=10, target_modules=[*ATTENTION, *PROJECTIONS, *CONVOLUTIONS, *FEED_FORWARD, "conv_shortcut"]
    ),
    "sketch-to-image": LoraConfig(r=16, lora_alpha=24, target_modules=[*ATTENTION, *PROJECTIONS, *CONVOLUTIONS, "conv_shortcut"]),
    "sticker": LoraConfig(r=8, lora_alpha=16, target_modules=[*ATTENTION, *FEED_FORWARD, *CONVOLUTIONS]),
    "portrait": LoraConfig(r=12, lora_alpha=6, use_rslora=True, target_modules=[*ATTENTION, *CONVOLUTIONS, "conv_shortcut"]),
}
PLANS = {
    "restyle": loop.TrainingPlan(steps=1200, batch=32, learning_rate=2e-3, seed=2, warmup=30, ema_decay=0.99),
    "remove-object": loop.TrainingPlan(steps=2000, batch=32, learning_rate=3e-3, seed=3, warmup=30, ema_decay=0.99),
    "sketch-to-image": loop.TrainingPlan(steps=1800, batch=32, learning_rate=2e-3, seed=6, warmup=30, ema_decay=0.99),
    "sticker": loop.TrainingPlan(steps=4000, batch=32, learning_rate=1.5e-3, seed=7, warmup=30, ema_decay=0.99),
    "portrait": loop.TrainingPlan(steps=800, batch=32, learning_rate=2e-3, seed=8, warmup=30, ema_decay=0.99),
}


@dataclass(frozen=True, kw_only=True)
class FrozenBase:
    """The modules that an adapter is trained for, on the device where that happens."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel

    @torch.no_grad()
    def states(self, texts: list[str]) -> torch.Tensor:
        """Text encoder states (N, 16, 128)."""
        ids = text_to_image.token_ids(self.tokenizer, texts).to(loop.device())
        return self.text_encoder(ids).last_hidden_state

    def prompts(self, wordings: list[captions.Wording]) -> "Prompts":
        """The states of all that pictures may be called."""
        return Prompts(wordings=wordings, states=[self.states(list(w.texts)) for w in wordings], empty=self.states([""])[0])


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The captions of each picture as the text encoder's states (names, 16, 128), and those of no prompt (16, 128)."""

    wordings: list[captions.Wording]
    states: list[torch.Tensor]
    empty: torch.Tensor

    def draw(self, chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One prompt of each chosen picture, now and then none, for guidance -> (N, 16, 128)."""
        words = torch.stack([self.states[i][captions.drawn(self.wordings[i], generator)] for i in chosen.tolist()])
        dropped = (torch.rand(len(words), generator=generator) < captions.DROPOUT).to(words.device)
        return torch.where(dropped[:, None, None], self.empty, words)


def attach(unet: UNet2DConditionModel, name: str) -> PeftModel:
    """A copy of the U-Net with fresh trainable LoRA weights."""
    torch.manual_seed(PLANS[name].seed)
    return get_peft_model(copy.deepcopy(unet).requires_grad_(False), LORA[name]).to(loop.device())


def draw(name: str, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch: which of `count` pictures, and for each 1 where it is mirrored, else 0."""
    size = PLANS[name].batch
    return torch.randint(count, (size,), generator=generator), torch.randint(2, (size,), generator=generator)


def fit(
    model: PeftModel,
    name: str,
    loss: loop.LossFunction,
    workbench: loop.Workbench,
    *,
    figures: Callable[[], loop.Figures] | None = None,
) -> None:
    """Train the LoRA weights and load their average."""
    loop.train({"lora": model}, loss, PLANS[name], workbench, figures=figures or (lambda: loop.mean_loss(loss)))


def save(model: PeftModel, folder: Path) -> None:
    """adapter_config.json and adapter_model.safetensors, in half precision and without a path of this machine."""
    copy.deepcopy(model).half().save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": "emoji-ldm", "target_modules": sorted(config["target_modules"]), "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
