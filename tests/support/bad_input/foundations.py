"""Foundations: a right model in diffusers' layout -> cases: configurations, weights and files of it that are wrong."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from quadbench.quad.adapters.loading import sites_of_unet
from quadbench.quad.cache import digests_of
from quadbench.quad.inputs import check_references
from quadbench.quad.model.foundation import load_checkpoint, load_foundation
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from support.bad_input.adapters import lying_headers, write_sparse_weights
from support.bad_input.case import Case
from support.bad_input.specs import NO_FILES
from support.bad_input.values import brief, changed, named, write_sparse, wrong_values

_CONFIGS = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)
_WEIGHTS = ("unet", "vae", "text_encoder")
_UNET = "unet/diffusion_pytorch_model.safetensors"


def foundation_cases(dice: random.Random, model: Path) -> Iterator[Case]:
    """Yield cases of a copy of the model, whose parts are all read; and of single files."""
    for config in _CONFIGS:
        tree = json.loads((model / config).read_text())
        for place, value, wrong in wrong_values(tree, dice, 12):
            name = f"{config} with {named(place)} = {brief(value)}"
            yield Case(name=name, act=partial(_with, model, {config: json.dumps(wrong).encode()}), may_pass=True)
        for content in (b"", b"[]", b"null", b"{}", b"{", b"[" * 10**5, b'{"a": NaN}', b"\xff\xfe"):
            harmless = content == b"{}" and config not in ("model_index.json", "unet/config.json")
            yield Case(name=f"{config} {content[:12]!r}", act=partial(_with, model, {config: content}), may_pass=harmless)
        for name, make in NO_FILES.items():
            yield Case(name=f"{config} that is {name}", act=partial(_replaced, model, config, make), names=str(Path(config).name))
    yield from _weights(dice, model)
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        yield Case(name=f"without {part}", act=partial(_without, model, part), names=part)
    for name, content in lying_headers().items():
        yield Case(name=f"checkpoint: {name}", act=partial(_checkpoint, content, "m.safetensors"), names="m.safetensors")
    yield from _sparse(model)
    for ending in (".ckpt", ".pt", ".bin", ""):
        yield Case(
            name=f"checkpoint {ending}", act=partial(_checkpoint, b"\x80\x04", f"m{ending}"), names="is not a .safetensors file"
        )


def _sparse(model: Path) -> Iterator[Case]:
    """Yield cases of weights of a terabyte: whatever reads them whole, if only for their digest, takes an hour."""
    unet = partial(write_sparse_weights, name="conv_in.weight")
    checkpoint = partial(write_sparse_weights, name="model.diffusion_model.input_blocks.0.0.weight")
    for what, write_unet, write_checkpoint in (("nothing", write_sparse, write_sparse), ("weights", unet, checkpoint)):
        yield Case(name=f"a U-Net of a terabyte of {what}", act=partial(_replaced, model, _UNET, write_unet), names=_UNET)
        yield Case(name=f"one of a terabyte of {what}, its digest", act=partial(_digested, model, write_unet), names=_UNET)
        for use in (load_checkpoint, _of_recipe):
            act = partial(_sparse_checkpoint, write_checkpoint, use)
            yield Case(name=f"checkpoint of a terabyte of {what}, {use.__name__}", act=act, names="m.safetensors")


def _sparse_checkpoint(write: Callable[[Path], None], use: Callable[[Path], object], folder: Path) -> None:
    write(folder / "m.safetensors")
    use(folder / "m.safetensors")


def _of_recipe(checkpoint: Path) -> None:
    """Use the checkpoint as a run does before it builds."""
    recipe = _recipe(checkpoint.parent, f"{{source: checkpoint, path: {checkpoint}}}")
    check_references(recipe)
    digests_of(recipe)


def _digested(model: Path, write: Callable[[Path], None], folder: Path) -> None:
    copied = _copied(model, folder)
    write(copied / _UNET)
    digests_of(_recipe(folder, f"{{source: diffusers, path: {copied}}}"))


def _recipe(folder: Path, foundation: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(f"""\
schema_version: 1
name: large
foundation: {foundation}
adapters: {{}}
tasks:
  - name: imagine
    kind: text-to-image
    adapter: null
    sampler: {{scheme: ed, steps: 3}}
    prompts: [noto apple, twemoji pear]
precision: {{weights: int8, activations: {{scheme: w8a16}}, lora: int16}}
quad:
  profile: {{scheme: unified}}
  calibration: {{scheme: joint, samples: 1}}
""")
    return load_recipe(path)


def _weights(dice: random.Random, model: Path) -> Iterator[Case]:
    tensors = load_file(model / _UNET)
    first = next(iter(tensors))
    changes: dict[str, dict[str, torch.Tensor]] = {
        "NaN": {first: tensors[first] * float("nan")},
        "Inf": {first: tensors[first] + float("inf")},
        "1e30": {first: torch.full_like(tensors[first], 1e30)},
        "another shape": {first: tensors[first].flatten()[:3]},
        "integers": {first: tensors[first].to(torch.int32)},
        "complex numbers": {first: tensors[first].to(torch.complex64)},
    }
    for name, change in changes.items():
        yield Case(name=f"weights of {name}", act=partial(_with_tensors, model, tensors | change))
    fewer = {key: tensor for key, tensor in tensors.items() if key != first}
    yield Case(name="weights without one", act=partial(_with_tensors, model, fewer))
    for name, content in lying_headers().items():
        yield Case(name=f"weights: {name}", act=partial(_with, model, {_UNET: content}))
    for part in _WEIGHTS:
        path = next((model / part).glob("*.safetensors"))
        for number in range(6):
            content = changed(path.read_bytes(), dice)
            act = partial(_with, model, {str(path.relative_to(model)): content})
            yield Case(name=f"{part} changed {number}", act=act, may_pass=True)


def _copied(model: Path, folder: Path) -> Path:
    return Path(shutil.copytree(model, folder / "model"))


def _with(model: Path, files: dict[str, bytes], folder: Path) -> None:
    copied = _copied(model, folder)
    for name, content in files.items():
        (copied / name).write_bytes(content)
    _use(copied)


def _with_tensors(model: Path, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    copied = _copied(model, folder)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, copied / _UNET)
    _use(copied)


def _replaced(model: Path, file: str, make: Callable[[Path], object], folder: Path) -> None:
    copied = _copied(model, folder)
    (copied / file).unlink()
    make(copied / file)
    _use(copied)


def _without(model: Path, part: str, folder: Path) -> None:
    copied = _copied(model, folder)
    shutil.rmtree(copied / part)
    _use(copied)


def _use(folder: Path) -> None:
    foundation = load_foundation(folder)
    sites_of_unet(foundation.skeleton)
    assert all((foundation.unet, foundation.vae, foundation.part("text_encoder")))
    foundation.tokenize("noto apple")


def _checkpoint(content: bytes, name: str, folder: Path) -> None:
    (folder / name).write_bytes(content)
    assert load_checkpoint(folder / name).unet
