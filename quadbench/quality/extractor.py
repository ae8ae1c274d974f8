"""Extractor: an ONNX file -> a network that takes images as quadbench has them and gives features or distances."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch.nn import functional as F

from quadbench.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Form:
    """A network's inputs and output. `size` None leaves images at their own; pixels become (x - mean) / std, x in [0, 1]."""

    size: int | None
    mode: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    images: int  # batches of images that it takes
    output: str
    output_rank: int


_HALF = (0.5, 0.5, 0.5)
# Means and deviations are those that each network was published with: CLIP's of its repository, DINO's ImageNet's.
FORMS = {
    "clip": Form(
        size=224,
        mode="bicubic",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        images=1,
        output="image embeddings (1, d)",
        output_rank=2,
    ),
    "dino": Form(
        size=224,
        mode="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        images=1,
        output="the keys of the last attention layer (1, T, d)",
        output_rank=3,
    ),
    "inception": Form(
        size=299, mode="bilinear", mean=_HALF, std=_HALF, images=1, output="pooled features (1, 2048)", output_rank=2
    ),
    "lpips": Form(size=None, mode="", mean=_HALF, std=_HALF, images=2, output="one distance", output_rank=0),
}


class Extractor:
    """A network from an ONNX file. Images are (N, 3, H, W) in [0, 1]; they run one by one, so that graphs of batch 1 do."""

    def __init__(self, path: Path, name: str) -> None:
        """Load the network and check its form.

        Raises:
            UserError: the file is no ONNX graph, or one with other inputs and outputs than the form has.
        """
        self._name, self._form = name, FORMS[name]
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own errors have no common base
            raise UserError(f"weights '{name}': '{path}' is no ONNX graph that ONNX Runtime loads: {error}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != self._form.images or len(outputs) != 1:
            raise UserError(
                f"weights '{name}': '{path}' has {len(inputs)} inputs and {len(outputs)} outputs; "
                f"expected {self._form.images} of images and 1, {self._form.output}"
            )
        self._inputs = [i.name for i in inputs]

    def __call__(self, *batches: torch.Tensor) -> torch.Tensor:
        prepared = [self._prepared(batch) for batch in batches]
        return torch.cat([self._run(*(batch[i : i + 1] for batch in prepared)) for i in range(len(prepared[0]))])

    def _prepared(self, images: torch.Tensor) -> torch.Tensor:
        form = self._form
        if form.size is not None:
            images = F.interpolate(images, size=(form.size, form.size), mode=form.mode, antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (form.mean, form.std))
        return (images - mean) / std

    def _run(self, *images: torch.Tensor) -> torch.Tensor:
        feed = {name: image.numpy() for name, image in zip(self._inputs, images, strict=True)}
        try:
            output = torch.from_numpy(self._session.run(None, feed)[0])
        except Exception as error:  # ONNX Runtime's own errors have no common base
            raise UserError(f"weights '{self._name}' take no image of {tuple(images[0].shape)}: {error}") from error
        if self._form.output_rank == 0 and output.numel() == 1:
            output = output.reshape(-1)  # a distance, however many ones its shape has
        if output.dim() != max(self._form.output_rank, 1) or output.shape[0] != 1:
            raise UserError(f"weights '{self._name}' give {tuple(output.shape)}; expected {self._form.output}")
        if not torch.isfinite(output).all():
            raise UserError(f"weights '{self._name}' give NaN or Inf for an image", hint="give weights in float32")
        return output
