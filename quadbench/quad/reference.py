"""Reference: a task's float32 reference images by diffusers and PEFT. Images of quantized graphs are compared with them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import diffusers
import numpy as np
import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from quadbench.artifacts.bundle import TaskKind
from quadbench.artifacts.pixels import Pixels, composite
from quadbench.quad.adapters import kohya
from quadbench.quad.adapters.lora_pairs import split_text_encoder
from quadbench.quad.adapters.peft import PREFIX, prefix_of
from quadbench.quad.families.family import Source
from quadbench.quad.items import Item
from quadbench.quad.model.float_graphs import as_latent, copy_of_modules, of_latent, text_encoder_graph
from quadbench.quad.model.foundation import Foundation
from quadbench.quad.model.lora import denoiser_arguments
from quadbench.quad.model_files import PEFT_TENSORS, AdapterFormat, AdapterSource
from quadbench.quad.samplers.table import SamplerTable, run_table
from quadbench.recipe import Task
from quadbench.recipe.tasks import (
    DdimSampler,
    EdSampler,
    ImageToImageTask,
    InpaintTask,
    LcmSampler,
    OlssSampler,
    Spacing,
    TcdSampler,
    TextToImageTask,
)

_ALPHA = ".alpha"
_PEFT_PREFIX = "base_model.model."
_loader = StableDiffusionLoraLoaderMixin
State = dict[str, torch.Tensor]


class _FlowScheduler(diffusers.FlowMatchEulerDiscreteScheduler):
    """diffusers' Euler scheduler of flow matching with the methods that its Stable Diffusion pipelines call."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: torch.Tensor, _timestep: torch.Tensor) -> torch.Tensor:
        return sample

    def add_noise(self, latent: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.scale_noise(latent, timestep, noise)


def with_adapters(unet: nn.Module, sources: Mapping[str, AdapterSource], weights: Mapping[str, float]) -> nn.Module:
    """Return a copy of the U-Net with the adapters in `weights` (name to factor). PEFT loads PEFT files, diffusers the others."""
    adapted = copy_of_modules(unet)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # expected with several adapters
        for name in weights:
            _load(name, sources[name], unet, adapted)
    if weights:
        adapted.set_adapters(list(weights), list(weights.values()))
    return adapted


def _load(name: str, source: AdapterSource, plain: nn.Module, adapted: nn.Module) -> None:
    """Load an adapter into the U-Net `adapted` as `name`. `plain`, the U-Net without adapters, shows which layers are Linear."""
    metadata = None
    match source.format:
        case AdapterFormat.PEFT:
            config = LoraConfig.from_pretrained(str(source.path))
            config.base_model_name_or_path = None  # PEFT warns if it names another model, even if this U-Net is a copy
            state = {
                key.removeprefix(_PEFT_PREFIX): tensor for key, tensor in _plain(load_file(source.path / PEFT_TENSORS)).items()
            }
            inject_adapter_in_model(config, adapted, name)
            set_peft_model_state_dict(adapted, state, adapter_name=name)
            return
        case AdapterFormat.DIFFUSERS:
            where = {"weight_name": source.path.name, "local_files_only": True, "return_lora_metadata": True}
            state, _, metadata = _loader.lora_state_dict(str(source.path.parent), **where)
            metadata = {key: value for key, value in _of_unet(metadata or {}).items() if key.startswith(PREFIX)} or None
            state = convert_unet_state_dict_to_peft(_plain(_of_unet(state)))
            if metadata:  # the metadata has the scale, so alphas are ignored
                state = {key: tensor for key, tensor in state.items() if not key.endswith(_ALPHA)}
            state = _without_alphas(state, up=".lora_B.weight")
        case AdapterFormat.KOHYA:
            state = _without_alphas(_plain(load_file(source.path)), up=".lora_up.weight")
            names = {key: key.removeprefix(kohya.PREFIX).partition(".")[::2] for key in state}
            known = {f"{kohya.PREFIX}{kohya.as_diffusers_reads(flat)}.{part}": state[key] for key, (flat, part) in names.items()}
            state, _ = _loader.lora_state_dict(known, unet_config=plain.config)
            state = convert_unet_state_dict_to_peft(state)
        case _:
            assert_never(source.format)
    shaped = {}  # matrices for Linear, 1x1 kernels for Conv2d: kohya's files may have either for both
    for key, tensor in state.items():
        module = plain.get_submodule(key.removeprefix(PREFIX).partition(".lora_")[0])
        is_pointwise = tensor.shape[2:] in ((), (1, 1))
        wanted = (*tensor.shape[:2], *(() if isinstance(module, nn.Linear) else (1, 1)))
        shaped[key] = tensor.reshape(wanted) if is_pointwise else tensor
    _loader.load_lora_into_unet(shaped, network_alphas=None, unet=adapted, adapter_name=name, metadata=metadata)


def _plain(state: State) -> State:
    """Return an adapter's U-Net tensors in float32, as torch cannot compute in 8-bit floats. Drop PEFT's adapter name in keys."""
    return {key.replace(".default.", "."): tensor.float() for key, tensor in split_text_encoder(state)[0].items()}


def _of_unet(values: dict[str, Any]) -> dict[str, Any]:
    """Return a dict with `unet.` put before each key. If any key starts with `unet.` or `text_encoder.`, no key changes."""
    prefix = "" if prefix_of(values) else PREFIX
    return {prefix + key: value for key, value in values.items()}


def _without_alphas(state: State, *, up: str) -> State:
    """Return LoRA tensors with alpha / rank folded into up matrices. diffusers 0.42 ignores unequal attention-layer alphas."""
    alphas = {key.removesuffix(_ALPHA) + up: float(tensor) for key, tensor in state.items() if key.endswith(_ALPHA)}
    weights = {key: tensor for key, tensor in state.items() if not key.endswith(_ALPHA)}
    return weights | {key: weights[key] * (alpha / weights[key].shape[1]) for key, alpha in alphas.items()}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A renderer of a task's reference images, with the task's sampler table and float torch U-Net."""

    foundation: Foundation
    task: Task
    table: SamplerTable
    unet: nn.Module

    def render(self, item: Item) -> Image.Image:
        """Render the reference image of a task input, and return it as an 8-bit RGB PIL image."""
        with torch.no_grad():
            is_olss = isinstance(self.task.sampler, OlssSampler)
            decoded = _to_pixels(self._run_components(item) if is_olss else self._run_pipeline(item))
        if item.blend is None or item.image is None:
            return Image.fromarray(decoded)
        return Image.fromarray(composite(decoded, _to_pixels(item.image), item.blend))

    def latent(self, item: Item) -> torch.Tensor | None:
        """Return the input image's latent: the VAE posterior's scaled mean, not a random sample. Return None without image."""
        vae = self.foundation.vae
        return None if item.image is None else as_latent(vae, vae.encode(item.image).latent_dist.mean)

    def _run_components(self, item: Item) -> torch.Tensor:
        """Run text encoder, U-Net per sampler step, and VAE decoder for an input. Return an unclamped image (1, 3, H, W)."""
        foundation, guidance = self.foundation, self.task.guidance
        prompt = self._encoded(item.tokens)
        zeros = {name: torch.zeros_like(value) for name, value in prompt.items()}
        negative = zeros if item.negative_tokens is None else self._encoded(item.negative_tokens)

        def denoise(step: int, sample: torch.Tensor) -> torch.Tensor:
            conditioned = self._predict(step, sample, prompt)
            if guidance == 1.0:
                return conditioned
            free = self._predict(step, sample, negative)
            return free + guidance * (conditioned - free)

        noise = item.noise(foundation, len(self.table.steps))
        latent = self.latent(item)
        final = run_table(
            self.table,
            denoise,
            latent=torch.zeros_like(noise[:1]) if latent is None else latent,
            noise=noise,
            mask=item.latent_mask(foundation.sizes.latent),
        )
        return foundation.vae.decode(of_latent(foundation.vae, final)).sample

    def _encoded(self, tokens: Mapping[str, Sequence[int]]) -> State:
        """Return the conditions that text encoders give for a prompt's token ids, by name."""
        graph = text_encoder_graph(self.foundation)
        return dict(zip(graph.outputs, graph(*(torch.tensor([ids]) for ids in tokens.values())), strict=True))

    def _predict(self, step: int, sample: torch.Tensor, encoded: State) -> torch.Tensor:
        """Return what the denoiser predicts of a latent at a step, with the conditions of a prompt."""
        conditions = self.foundation.family.conditions
        size = self.foundation.sizes.image
        given = dict(encoded)
        for one in self.foundation.family.conditions_from(Source.STEP, Source.TASK):
            numbers = [one.numbers(size, size)] if one.numbers else self.table.timesteps[step]
            given[one.name] = torch.tensor(numbers, dtype=torch.float32 if one.numbers else None)
        predicted: torch.Tensor = self.unet(sample, **denoiser_arguments(conditions, given)).sample
        return predicted

    def _run_pipeline(self, item: Item) -> torch.Tensor:
        """Run the task's diffusers pipeline on an input's prompts, image and mask. Return an image (1, 3, H, W) in [-1, 1]."""
        task = self.task
        kwargs = {
            "prompt": item.prompt,
            "negative_prompt": item.negative_prompt,
            "num_inference_steps": task.sampler.steps,
            "guidance_scale": task.guidance,
            "generator": torch.Generator().manual_seed(item.seed),
            "output_type": "pt",
        }
        if isinstance(task.sampler, LcmSampler | EdSampler | TcdSampler) and task.sampler.timesteps:
            kwargs["timesteps"] = list(task.sampler.timesteps)
        if isinstance(task.sampler, TcdSampler):
            kwargs["eta"] = task.sampler.eta
        pipeline = self._pipeline()
        match task:
            case TextToImageTask():
                image = pipeline(**kwargs)
            case ImageToImageTask():
                image = pipeline(image=self.latent(item), strength=task.strength, **kwargs)
            case InpaintTask():
                latent = self.latent(item)  # a plain U-Net ignores the masked image; passing a latent avoids computing it
                image = pipeline(
                    image=latent, mask_image=item.mask, masked_image_latents=latent, strength=task.strength, **kwargs
                )
        return image.images * 2 - 1

    def _pipeline(self) -> Any:
        """Return a diffusers pipeline for text-to-image, image-to-image or inpainting, with the task's scheduler and U-Net."""
        foundation = self.foundation
        parts = {part: self.unet if part == "unet" else foundation.part(part) for part in foundation.family.modules}
        kind = getattr(diffusers, foundation.family.pipelines[TaskKind(self.task.kind)])
        options = dict(foundation.family.without)
        if key := foundation.family.zeros_key:
            options[key] = foundation.has_zeros_without_prompt
        pipeline = kind(**parts, **foundation.tokenizers, scheduler=self._scheduler(), **options)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _scheduler(self) -> Any:
        """Return diffusers' scheduler of the task's sampler, with the model's configuration and the recipe's spacing."""
        config, sampler = self.foundation.scheduler, self.task.sampler
        if config.is_flow:
            return _FlowScheduler(num_train_timesteps=config.train_steps, shift=config.shift)
        arguments = config.arguments()
        match sampler:
            case LcmSampler():
                return diffusers.LCMScheduler(**arguments)
            case TcdSampler():
                return diffusers.TCDScheduler(**arguments)
            case EdSampler():
                return diffusers.EulerDiscreteScheduler(**arguments | _spaced(sampler.spacing))
            case DdimSampler():
                options = {"clip_sample": False, "set_alpha_to_one": config.set_alpha_to_one}
                return diffusers.DDIMScheduler(**arguments | _spaced(sampler.spacing) | options)
            case OlssSampler():
                raise ValueError("OLSS has no scheduler in diffusers")


def _spaced(spacing: Spacing | None) -> dict[str, Spacing]:
    return {"timestep_spacing": spacing} if spacing else {}


def reference_for(foundation: Foundation, task: Task, table: SamplerTable, adapters: Mapping[str, AdapterSource]) -> Reference:
    """Return a Reference whose U-Net has the adapters, loaded from their original files and scaled by the task's weights."""
    unet = with_adapters(foundation.unet, adapters, task.adapter)
    return Reference(foundation=foundation, task=task, table=table, unet=unet.eval().requires_grad_(False))


def _to_pixels(image: torch.Tensor) -> Pixels:
    """Return an image (1, 3, H, W) in [-1, 1] as 8-bit RGB (H, W, 3), rounded as in diffusers."""
    unit = ((image[0] + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    return (unit * 255).round().astype(np.uint8)
