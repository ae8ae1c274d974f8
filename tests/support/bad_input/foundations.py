"""Foundations: a right model in diffusers' layout -> cases: configurations, weights and files of it that are wrong."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from quadbench.quad.adapters import sites_of_unet
from quadbench.quad.model.foundation import load_checkpoint, load_foundation
from support.bad_input.adapters import lying_headers
from support.bad_input.case import Case
from support.bad_input.specs import NO_FILES
from support.bad_input.values import brief, changed, named, wrong_values

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
    for ending in (".ckpt", ".pt", ".bin", ""):
        yield Case(name=f"checkpoint {ending}", act=partial(_checkpoint, b"\x80\x04", f"m{ending}"), names="no .safetensors file")


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
    assert all((foundation.unet, foundation.vae, foundation.text_encoder))
    foundation.tokenize("noto apple")


def _checkpoint(content: bytes, name: str, folder: Path) -> None:
    (folder / name).write_bytes(content)
    assert load_checkpoint(folder / name).unet
