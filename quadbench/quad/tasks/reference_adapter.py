"""Reference adapter: a U-Net and adapters' files -> the U-Net with them in it, as PEFT and diffusers load and weigh them."""

import warnings
from collections.abc import Mapping
from typing import Any, assert_never

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

from quadbench.quad.adapters import kohya
from quadbench.quad.adapters.diffusers import PREFIX, prefix_of
from quadbench.quad.adapters.reading import apart
from quadbench.quad.model.components import copy_of_modules
from quadbench.quad.sources import PEFT_TENSORS, AdapterFormat, AdapterSource

_ALPHA = ".alpha"
_PEFT_PREFIX = "base_model.model."
_loader = StableDiffusionLoraLoaderMixin

State = dict[str, torch.Tensor]


def with_adapters(unet: nn.Module, sources: Mapping[str, AdapterSource], weights: Mapping[str, float]) -> nn.Module:
    """Return a copy of the U-Net with the adapters in it, which have been read and accepted before, each with its weight."""
    adapted = copy_of_modules(unet)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # which is what several adapters are
        for name in weights:
            _load(name, sources[name], unet, adapted)
    if weights:
        adapted.set_adapters(list(weights), list(weights.values()))
    return adapted


def _load(name: str, source: AdapterSource, plain: nn.Module, adapted: nn.Module) -> None:
    """Load an adapter under a name; `plain` is the U-Net without any."""
    metadata = None
    match source.format:
        case AdapterFormat.PEFT:
            config = LoraConfig.from_pretrained(str(source.path))
            config.base_model_name_or_path = None  # the name of a model that this U-Net may be a copy of, of which PEFT warns
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
            if metadata:  # it has the scale, whatever the alphas beside it are
                state = {key: tensor for key, tensor in state.items() if not key.endswith(_ALPHA)}
            state = _without_alphas(state, up=".lora_B.weight")
        case AdapterFormat.KOHYA:
            state = _known_names(_without_alphas(_plain(load_file(source.path)), up=".lora_up.weight"))
            state, _ = _loader.lora_state_dict(state, unet_config=plain.config)
            state = convert_unet_state_dict_to_peft(state)
        case _:
            assert_never(source.format)
    shaped = _in_shape(state, plain)
    _loader.load_lora_into_unet(shaped, network_alphas=None, unet=adapted, adapter_name=name, metadata=metadata)


def _plain(state: State) -> State:
    """Return the U-Net's tensors in float32, as few operators take 8-bit ones, and without PEFT's adapter name in their keys."""
    return {key.replace(".default.", "."): tensor.float() for key, tensor in apart(state)[0].items()}


def _of_unet(values: dict[str, Any]) -> dict[str, Any]:
    """Return what the U-Net alone has saved under the keys that a whole pipeline saves."""
    prefix = "" if prefix_of(values) else PREFIX
    return {prefix + key: value for key, value in values.items()}


def _known_names(state: State) -> State:
    """Return kohya's keys under names that diffusers' conversion knows."""
    names = {key: key.removeprefix(kohya.PREFIX).partition(".")[::2] for key in state}
    return {f"{kohya.PREFIX}{kohya.as_diffusers_reads(flat)}.{part}": state[key] for key, (flat, part) in names.items()}


def _without_alphas(state: State, *, up: str) -> State:
    """Multiply alphas into the up-projections: where they differ, diffusers 0.42 forgets those of attention layers."""
    alphas = {key.removesuffix(_ALPHA) + up: float(tensor) for key, tensor in state.items() if key.endswith(_ALPHA)}
    weights = {key: tensor for key, tensor in state.items() if not key.endswith(_ALPHA)}
    return weights | {key: weights[key] * (alpha / weights[key].shape[1]) for key, alpha in alphas.items()}


def _in_shape(state: State, unet: nn.Module) -> State:
    """Return matrices for linear maps and 1x1 kernels for convolutions: kohya's files may hold either for both."""
    shaped = {}
    for key, tensor in state.items():
        module = unet.get_submodule(key.removeprefix(PREFIX).partition(".lora_")[0])
        is_pointwise = tensor.shape[2:] in ((), (1, 1))
        wanted = (*tensor.shape[:2], *(() if isinstance(module, nn.Linear) else (1, 1)))
        shaped[key] = tensor.reshape(wanted) if is_pointwise else tensor
    return shaped
