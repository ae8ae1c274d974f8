"""Foundation: what a recipe names as its foundation model -> its modules in float32, ready to be traced."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from quadbench import zoo
from quadbench.errors import UserError
from quadbench.quad.geometry import clip_tokenizer, part_folder, random_module
from quadbench.recipe import BuiltinFoundation, CheckpointFoundation, DiffusersFoundation, RandomFoundation
from quadbench.recipe import Foundation as FoundationSpec

_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(kw_only=True)
class Foundation:
    """A latent diffusion model in the shape of Stable Diffusion 1.x, in evaluation mode and without gradients.

    Its U-Net is read when it is first asked for, and can be given back: nothing else in a build is as large.
    """

    name: str  # for messages
    skeleton: nn.Module  # the U-Net without its weights: modules, shapes and configuration
    read_unet: Callable[[], nn.Module]
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: CLIPTokenizer
    alphas_cumprod: torch.Tensor  # (1000,) float64
    scheduler_config: dict[str, object]
    _unet: nn.Module | None = field(default=None, init=False, repr=False)

    @property
    def unet(self) -> nn.Module:
        """The U-Net with its weights, which whoever asks leaves as they are."""
        if self._unet is None:
            self._unet = _ready(self.read_unet())
        return self._unet

    def release_unet(self) -> None:
        """Give the memory of the U-Net's weights back; `unet` reads them again."""
        self._unet = None

    @property
    def image_size(self) -> int:
        return int(self.latent_size * 2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def latent_channels(self) -> int:
        return int(self.skeleton.config.in_channels)

    @property
    def latent_size(self) -> int:
        return int(self.skeleton.config.sample_size)

    def tokenize(self, prompt: str) -> tuple[int, ...]:
        """Token ids, padded or cut to the text encoder's length T."""
        encoded = self.tokenizer(prompt, padding="max_length", truncation=True, max_length=self.tokenizer.model_max_length)
        return tuple(int(i) for i in encoded["input_ids"])


def open_foundation(spec: FoundationSpec) -> Foundation:
    """The foundation model that a recipe names.

    Raises:
        UserError: it lacks a part or cannot be read, or its U-Net is of a kind that the graph does not take.
    """
    match spec:
        case BuiltinFoundation(name=name):
            return load_foundation(zoo.foundation_folder(name))
        case DiffusersFoundation(path=path):
            return load_foundation(path)
        case CheckpointFoundation(path=path):
            return load_checkpoint(path)
        case RandomFoundation(geometry=geometry, seed=seed):
            return random_foundation(geometry, seed)
        case _:
            assert_never(spec)


def load_foundation(folder: Path) -> Foundation:
    """Read a diffusers folder; weights are safetensors, pickles are not opened.

    Raises:
        UserError: the folder lacks a part, or the U-Net is of a kind that the graph does not take.
    """
    missing = [part for part in _PARTS if not (folder / part).is_dir()]
    if missing:
        raise UserError(
            f"foundation model '{folder}' lacks {', '.join(missing)}; expected a Stable Diffusion 1.x folder",
            hint="save it with diffusers: StableDiffusionPipeline.save_pretrained(folder, safe_serialization=True)",
        )
    load = {"use_safetensors": True, "local_files_only": True}

    def read_unet() -> nn.Module:
        with _readable(folder):
            return UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32, **load)

    with _readable(folder):
        return _foundation(
            name=str(folder),
            unet_config=folder / "unet",
            read_unet=read_unet,
            vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32, **load),
            text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32, **load),
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
        )


def load_checkpoint(path: Path, geometry: str = "sd15") -> Foundation:
    """Read a single file in the layout of Stable Diffusion's first release, through diffusers' own reader and without network.

    Such a file holds neither tokenizer nor scheduler: they are those of Stable Diffusion 1.

    Raises:
        UserError: it is a pickle, which is not opened, or lacks a part of the geometry.
    """
    if path.suffix != ".safetensors":
        raise UserError(
            f"foundation model '{path}' is no .safetensors file; pickles (.ckpt, .pt, .bin) are not opened, as they run code",
            hint="save it as safetensors, or give its diffusers folder with source: diffusers",
        )
    single = {"torch_dtype": torch.float32, "local_files_only": True}
    unet_config = part_folder(geometry, "unet")

    def read_unet() -> nn.Module:
        with _readable(path):
            return UNet2DConditionModel.from_single_file(str(path), config=str(unet_config), **single)

    with _readable(path):
        tokenizer, scheduler = clip_tokenizer(), DDIMScheduler.from_pretrained(part_folder(geometry, "scheduler"))
        given = {"tokenizer": tokenizer, "scheduler": scheduler, "unet": None, "safety_checker": None, "feature_extractor": None}
        parts = StableDiffusionPipeline.from_single_file(str(path), config=str(unet_config.parent), **given, **single)
        return _foundation(
            name=str(path),
            unet_config=unet_config,
            read_unet=read_unet,
            vae=parts.vae,
            text_encoder=parts.text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
        )


def random_foundation(geometry: str, seed: int) -> Foundation:
    """A model of a published size, its weights as torch initializes them: what goes through it stays finite and varies."""

    def read(part: str) -> nn.Module:
        return random_module(geometry, part, seed)

    return _foundation(
        name=f"random {geometry}",
        unet_config=part_folder(geometry, "unet"),
        read_unet=lambda: read("unet"),
        vae=read("vae"),
        text_encoder=read("text_encoder"),
        tokenizer=clip_tokenizer(),
        scheduler=DDIMScheduler.from_pretrained(part_folder(geometry, "scheduler")),
    )


def time_features(foundation: Foundation, timesteps: list[float]) -> torch.Tensor:
    """The U-Net's own sinusoids of the time steps, (steps, C) float32."""
    return foundation.skeleton.time_proj(torch.tensor(timesteps, dtype=torch.float32)).float()


def _foundation(
    *,
    name: str,
    unet_config: Path,
    read_unet: Callable[[], nn.Module],
    vae: nn.Module,
    text_encoder: nn.Module,
    tokenizer: CLIPTokenizer,
    scheduler: DDIMScheduler,
) -> Foundation:
    with init_empty_weights():
        skeleton = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(unet_config))
    _check(name, skeleton, scheduler)
    text_encoder.set_attn_implementation("eager")  # exports to plain nodes
    return Foundation(
        name=name,
        skeleton=skeleton,
        read_unet=read_unet,
        vae=_ready(vae),
        text_encoder=_ready(text_encoder),
        tokenizer=tokenizer,
        alphas_cumprod=scheduler.alphas_cumprod.double(),
        scheduler_config=dict(scheduler.config),
    )


def _ready(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError, SingleFileComponentError) as error:
        raise UserError(f"foundation model '{path}' cannot be read: {error}") from error


def _check(name: str, unet: nn.Module, scheduler: DDIMScheduler) -> None:
    if scheduler.config.prediction_type != "epsilon":
        found = scheduler.config.prediction_type
        raise UserError(f"foundation model '{name}' predicts '{found}'; the sampler tables take 'epsilon'")
    if unet.config.in_channels != unet.config.out_channels:
        shape = f"{unet.config.in_channels} input and {unet.config.out_channels} output channels"
        raise UserError(
            f"the U-Net of '{name}' has {shape}; expected as many of either",
            hint="inpainting works by blending latents, so a plain text-to-image U-Net serves it",
        )
    if unet.config.addition_embed_type or unet.config.class_embed_type or unet.config.time_cond_proj_dim:
        raise UserError(f"the U-Net of '{name}' takes conditions besides text and time, which the graph has no inputs for")
