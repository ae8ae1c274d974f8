"""Reference adapter: a U-Net and an adapter's files -> the U-Net with the adapter in it, as PEFT and diffusers load it."""

from typing import assert_never

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

from quadbench.quad.model.components import copy_of_modules
from quadbench.quad.sources import AdapterFormat, AdapterSource

_UNET, _ALPHA = "unet.", ".alpha"
_loader = StableDiffusionLoraLoaderMixin

State = dict[str, torch.Tensor]


def with_adapter(unet: nn.Module, source: AdapterSource) -> nn.Module:
    """Return a copy of the U-Net with the adapter in it. The adapter has been read and accepted before."""
    unet = copy_of_modules(unet)
    metadata = None
    match source.format:
        case AdapterFormat.PEFT:
            return PeftModel.from_pretrained(unet, str(source.path)).get_base_model()
        case AdapterFormat.DIFFUSERS:
            where = {"weight_name": source.path.name, "local_files_only": True, "return_lora_metadata": True}
            state, _, metadata = _loader.lora_state_dict(str(source.path.parent), **where)
            state = _without_alphas(convert_unet_state_dict_to_peft(state), up=".lora_B.weight")
        case AdapterFormat.KOHYA:
            state = _without_alphas(load_file(source.path), up=".lora_up.weight")
            state, _ = _loader.lora_state_dict(state, unet_config=unet.config)
            state = convert_unet_state_dict_to_peft(state)
        case _:
            assert_never(source.format)
    _loader.load_lora_into_unet(_in_shape(state, unet), network_alphas=None, unet=unet, metadata=metadata)
    return unet


def _without_alphas(state: State, *, up: str) -> State:
    """Multiply alphas into the up-projections: where they differ, diffusers 0.42 forgets those of attention layers."""
    alphas = {key.removesuffix(_ALPHA) + up: float(tensor) for key, tensor in state.items() if key.endswith(_ALPHA)}
    weights = {key: tensor for key, tensor in state.items() if not key.endswith(_ALPHA)}
    return weights | {key: weights[key] * (alpha / weights[key].shape[1]) for key, alpha in alphas.items()}


def _in_shape(state: State, unet: nn.Module) -> State:
    """Return matrices for linear maps and 1x1 kernels for convolutions: kohya's files may hold either for both."""
    shaped = {}
    for key, tensor in state.items():
        module = unet.get_submodule(key.removeprefix(_UNET).partition(".lora_")[0])
        is_pointwise = tensor.shape[2:] in ((), (1, 1))
        wanted = (*tensor.shape[:2], *(() if isinstance(module, nn.Linear) else (1, 1)))
        shaped[key] = tensor.reshape(wanted) if is_pointwise else tensor
    return shaped
