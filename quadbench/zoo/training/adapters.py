"""Adapters: a frozen base model -> two PEFT LoRA folders, `restyle` and `remove-object`.

Both adapt attention and convolutions, with different sites, ranks and alphas.

`restyle` is image-to-image from Twemoji to Noto with a deterministic sampler. It is trained on the very path that such a sampler
walks. Image-to-image starts at x_s = sqrt(a_s) z_src + sqrt(1 - a_s) eps. With c0 = sqrt(a_s / (1 - a_s)) and
E = eps + c0 (z_src - z_tgt) the same x_s is sqrt(a_s) z_tgt + sqrt(1 - a_s) E: noise that carries what is left of the source.
A DDIM step with a U-Net that answers E moves x_t along sqrt(a_t) z_tgt + sqrt(1 - a_t) E and keeps E, down to z_tgt.
So the input is that x_t for t in (0, s] and the target is E.
s differs with the number of steps (strength 0.7 starts at 601 of 10 steps, at 681 of 50) and is drawn from that range.

`remove-object` is inpainting by latent blending with four LCM steps: see `removal.py`.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import CLIPTextModel, CLIPTokenizer

from quadbench.zoo.training import autoencoder, corpus, loop, noise, text_to_image

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out"]
CONVOLUTIONS = ["conv1", "conv2"]
LORA = {
    "restyle": LoraConfig(r=16, lora_alpha=16, target_modules=[*ATTENTION, *CONVOLUTIONS]),
    "remove-object": LoraConfig(
        r=24, lora_alpha=12, target_modules=[*ATTENTION, *CONVOLUTIONS, "ff.net.0.proj", "ff.net.2", "conv_shortcut"]
    ),
}
BATCH = 64
LEARNING_RATE = {"restyle": 2e-3, "remove-object": 3e-3, "consistency": 3e-4}
STEPS = {"restyle": 400, "remove-object": 300, "consistency": 60}
SEED = {"restyle": 2, "remove-object": 3, "consistency": 4}
RESTYLE_START = (601, 701)


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


def train_restyle(npm_folder: Path, base: Base, folder: Path, *, minutes: float) -> PeftModel:
    """Pairs of the training concepts, mirrored half of the time."""
    concepts, _ = corpus.split(corpus.load_concepts(npm_folder))
    source, target = (_mirrored(base.vae, concepts, style) for style in ("twemoji", "noto"))
    states = [base.states([text_to_image.caption("noto", name) for name in concept.names]) for concept in concepts]
    empty = base.states([""])[0]
    model = attach(base.unet, "restyle")

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(concepts), (BATCH,), generator=generator)
        side = torch.randint(2, (BATCH,), generator=generator)
        words = torch.stack([states[i][int(torch.randint(len(states[i]), (1,), generator=generator))] for i in chosen.tolist()])
        dropped = torch.rand(BATCH, generator=generator) < text_to_image.CAPTION_DROPOUT
        prompt = torch.where(dropped[:, None, None], empty, words)
        z_source, z_target = source[side, chosen], target[side, chosen]
        start = torch.randint(*RESTYLE_START, (BATCH,), generator=generator)
        times = (torch.rand(BATCH, generator=generator) * start).long() + 1
        a_start, s_start = noise.signal_and_noise(start)
        goal = torch.randn(z_target.shape, generator=generator) + a_start / s_start * (z_source - z_target)
        a, s = noise.signal_and_noise(times)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(a * z_target + s * goal, times, prompt).sample.float()
        return ((predicted - goal) ** 2 * noise.min_snr_weight(times)).mean()

    fit(model, "restyle", loss_of_batch, folder, minutes)
    return model


def _mirrored(vae: AutoencoderKL, concepts: list[corpus.Concept], style: str) -> torch.Tensor:
    images = [concept.images[style] for concept in concepts]
    return torch.stack([autoencoder.encode(vae, images), autoencoder.encode(vae, [image[:, ::-1].copy() for image in images])])


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
