"""Formats: a path -> the format that lies there, its content, and the adapter if nothing is wrong with it."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import assert_never

import torch

from quadbench.errors import AdapterError
from quadbench.quad.adapters import diffusers, kohya, peft
from quadbench.quad.adapters.adapter import Adapter, LeftOut
from quadbench.quad.adapters.files import TensorFile, read_tensor_file
from quadbench.quad.adapters.fit import BaseSites, fitted
from quadbench.quad.adapters.reading import Reading, apart, refuse
from quadbench.quad.sources import PEFT_CONFIG, PEFT_TENSORS, AdapterFormat, saved_adapter

_IS_LORA = re.compile(r"\.lora|_lora\.(down|up)\.")  # of today, and of the attention processors' days

Read = Callable[[Mapping[str, torch.Tensor]], Reading]


@dataclass(frozen=True, kw_only=True)
class AdapterReading:
    """The content of an adapter's file or folder. Only what cannot be read at all was refused; other problems are listed."""

    format: AdapterFormat
    because: str  # how the format was recognized
    path: Path  # the file, also of diffusers' folder, or PEFT's folder
    reading: Reading
    left_out: LeftOut | None = None


def read_adapter(name: str, path: Path, *, unet_only: bool = False) -> AdapterReading:
    """Read a PEFT folder, or a safetensors file of diffusers or kohya, or diffusers' folder; the content tells which it is.

    With `unet_only` the text encoder's part is left out, and counted. PEFT saves a model at a time, so that its files have none.

    Raises:
        AdapterError: there is nothing that can be read, or its format is unknown. Other problems stand in the reading.
    """
    path = saved_adapter(path)
    if os.path.isdir(path):  # noqa: PTH112  (it raises nothing)
        config = peft.read_config(name, path)
        file = read_tensor_file(name, path / PEFT_TENSORS)
        because = f"the folder holds {PEFT_CONFIG}"
        return AdapterReading(format=AdapterFormat.PEFT, because=because, path=path, reading=peft.read_peft(file.tensors, config))
    file = read_tensor_file(name, path)
    form, because = _format_of(name, file)
    match form:
        case AdapterFormat.PEFT:
            if path.name != PEFT_TENSORS:
                raise AdapterError(
                    f"adapter '{name}': '{path}' has PEFT's tensors, but not the name {PEFT_TENSORS}",
                    hint=f"PEFT's scale stands in {PEFT_CONFIG}: put both into a folder, and give the folder",
                )
            return read_adapter(name, path.parent)
        case AdapterFormat.DIFFUSERS:
            unet = partial(diffusers.read_diffusers, metadata=file.metadata)
            text = partial(diffusers.read_text_encoder, metadata=file.metadata)
            reading, left_out = _read_parts(file, unet, text, unet_only=unet_only)
        case AdapterFormat.KOHYA:
            reading, left_out = _read_parts(file, kohya.read_kohya, kohya.read_text_encoder, unet_only=unet_only)
        case _:
            assert_never(form)
    return AdapterReading(format=form, because=because, path=path, reading=reading, left_out=left_out)


def _read_parts(file: TensorFile, read: Read, read_text: Read, *, unet_only: bool) -> tuple[Reading, LeftOut | None]:
    """Read a file whole, or the U-Net's part, and count the text encoder's; problems with that one are problems too."""
    if not unet_only:
        return read(file.tensors), None
    unet, text = apart(file.tensors)
    reading = read(unet)
    if not text:
        return reading, None
    others = read_text(text)
    problems = tuple(replace(problem, message=f"text encoder: {problem.message}") for problem in others.problems)
    left_out = LeftOut.of(len(text), _energies(others), unet_energy=sum(_energies(reading)))
    return replace(reading, problems=(*reading.problems, *problems)), left_out


def _energies(reading: Reading) -> list[float]:
    return [pair.energy for pair in reading.pairs.values()]


def load_adapter(
    name: str, path: Path, base: BaseSites, *, expected: AdapterFormat | None = None, unet_only: bool = False
) -> Adapter:
    """Read the adapter at a path and fit it to a base.

    Raises:
        AdapterError: it cannot be read, is not of the expected format, is no plain LoRA, has no usable numbers, or does not
            fit.
    """
    content = read_adapter(name, path, unet_only=unet_only)
    if expected is not None and content.format is not expected:
        raise AdapterError(
            f"adapter '{name}': '{path}' is of format {content.format} ({content.because}); the recipe says {expected}",
            hint=f"write source: {content.format}",
        )
    refuse(name, content.reading.problems)
    return fitted(Adapter(name=name, pairs=content.reading.pairs, left_out=content.left_out), base)


def _format_of(name: str, file: TensorFile) -> tuple[AdapterFormat, str]:
    keys = list(file.tensors)
    prefixes = {
        AdapterFormat.KOHYA: kohya.PREFIXES,
        AdapterFormat.DIFFUSERS: diffusers.PREFIXES,
        AdapterFormat.PEFT: ("base_model.model.",),
    }
    for form, starts in prefixes.items():
        count = sum(key.startswith(starts) for key in keys)
        if count and count == max(sum(key.startswith(other) for key in keys) for other in prefixes.values()):
            return form, f"{count} of its {len(keys)} tensors begin with {starts[0]}"
    if count := sum(key.startswith(diffusers.UNET_ROOTS) and bool(_IS_LORA.search(key)) for key in keys):
        return AdapterFormat.DIFFUSERS, f"{count} of its {len(keys)} tensors have the names of a U-Net's modules"
    raise AdapterError(
        f"adapter '{name}': '{file.path}' has tensors like '{keys[0]}', which no known format has",
        hint="known are PEFT folders, and files whose tensors begin with unet. or down_blocks. (diffusers) or lora_unet_ (kohya)",
    )
