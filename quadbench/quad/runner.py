"""Runner: running ONNX graphs with ONNX Runtime, and padding adapters' LoRA inputs to the ranks of a graph."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.numpy import load_file

from quadbench.artifacts import TensorSpec
from quadbench.errors import ArtifactError
from quadbench.quad.model.initializers import open_session

Feed = dict[str, np.ndarray]
Shape = tuple[int, ...]
Tensors = Mapping[str, np.ndarray]


class GraphSession:
    """An ONNX graph, loaded into an ONNX Runtime session on its first run."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._session: onnxruntime.InferenceSession | None = None

    def __call__(self, feed: Mapping[str, np.ndarray]) -> torch.Tensor:
        """Run the graph on the named inputs, and return its only output as a torch tensor."""
        (output,) = self.outputs(feed).values()
        return torch.from_numpy(output)

    def outputs(self, feed: Mapping[str, np.ndarray]) -> Feed:
        """Run the graph on the named inputs, and return its outputs by name."""
        if self._session is None:
            self._session = open_session(self._model)
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(feed)), strict=True))

    def release(self) -> None:
        """Free the session's memory. The next run loads the graph again."""
        self._session = None


@dataclass(frozen=True, kw_only=True)
class RunConditions:
    """A denoising run's conditions by name, LoRA inputs and guidance scale. `embedded` has those of the steps (steps, C) and of
    the task (1, C); `prompt` and `negative` what text encoders give for the two prompts.
    """

    embedded: Mapping[str, torch.Tensor]
    prompt: Feed
    negative: Feed
    lora: Feed
    guidance: float

    def at(self, step: int) -> Feed:
        """Return the conditions of a step and of the task, one row of each."""
        return {name: (rows[step : step + 1] if len(rows) > 1 else rows).numpy() for name, rows in self.embedded.items()}


@dataclass(kw_only=True)
class Denoiser:
    """A function that predicts noise with a U-Net, for samplers. If `record` is true, it keeps the U-Net's inputs and outputs."""

    unet: Callable[[Feed], torch.Tensor]
    condition: RunConditions
    record: bool = False
    feeds: list[Feed] = field(default_factory=list)
    eps: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, step: int, sample: torch.Tensor) -> torch.Tensor:
        """Return the noise prediction (1, 4, h, w) at a step, with classifier-free guidance (arXiv 2207.12598)."""
        conditioned = self._run(step, sample, self.condition.prompt)
        if self.condition.guidance == 1.0:
            return conditioned
        free = self._run(step, sample, self.condition.negative)
        return free + self.condition.guidance * (conditioned - free)

    def _run(self, step: int, sample: torch.Tensor, encoded: Feed) -> torch.Tensor:
        """Run the U-Net once with what text encoders give for a prompt, and return the noise prediction (1, 4, h, w)."""
        feed = {"sample": sample.numpy(), **self.condition.at(step), **encoded}
        eps = self.unet(feed | self.condition.lora)
        if self.record:
            self.feeds.append(feed)
            self.eps.append(eps)
        return eps


def as_feed(tensors: Mapping[str, torch.Tensor]) -> Feed:
    """Convert a dict of torch tensors to a dict of NumPy arrays with the same keys."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def encode_prompts(
    text_encoder: GraphSession, tokens: Mapping[str, Sequence[int]], negative: Mapping[str, Sequence[int]] | None
) -> tuple[Feed, Feed]:
    """Return what text encoders give for a prompt and a negative prompt: zeros where that is None."""
    prompt = text_encoder.outputs(token_feed(tokens))
    if negative is None:
        return prompt, {name: np.zeros_like(value) for name, value in prompt.items()}
    return prompt, text_encoder.outputs(token_feed(negative))


def token_feed(tokens: Mapping[str, Sequence[int]]) -> Feed:
    """Return token ids by input name as the text encoder's inputs, each int32 (1, T)."""
    return {name: np.array([ids], np.int32) for name, ids in tokens.items()}


def mixed_inputs(files: Sequence[tuple[Path, float]], inputs: Iterable[TensorSpec]) -> dict[str, np.ndarray]:
    """Read adapter files, each with a factor for its `up` matrices. Return the mixed adapters as LoRA inputs by name."""
    return stack_loras([(f"'{path}'", load_file(path), factor) for path, factor in files], inputs)


def stack_loras(parts: Sequence[tuple[str, Tensors, float]], inputs: Iterable[TensorSpec]) -> dict[str, np.ndarray]:
    """Concatenate adapters along the rank axis. Return a dict from LoRA input name to array, in which unused ranks are zero.
    An element of `parts` is a tuple: adapter name, dict from input name to tensor, and factor for the `up` matrices.
    """
    specs = {spec.name: spec for spec in inputs}
    padded = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
    filled: Counter[str] = Counter()
    for adapter, tensors, factor in parts:
        for name, tensor in tensors.items():
            spec, axis = specs.get(name), 1 if name.endswith(".up") else 0
            if spec is None or tensor.dtype != spec.dtype or not _has_place(tensor.shape, spec.shape, axis, filled[name]):
                expected = f"{spec.dtype} {spec.shape} or a smaller rank" if spec else "no such tensor"
                taken = f", as {filled[name]} ranks are already in use" if filled[name] else ""
                raise ArtifactError(
                    f"{adapter} has '{name}' as {tensor.dtype} {tensor.shape}; the graph takes {expected}{taken}",
                    hint="build the bundle again",
                )
            place = [slice(size) for size in tensor.shape]
            place[axis] = slice(filled[name], filled[name] + tensor.shape[axis])
            filled[name] += tensor.shape[axis]
            if axis == 1:  # integers are rounded half to even
                is_float = np.issubdtype(tensor.dtype, np.floating)
                tensor = tensor * tensor.dtype.type(factor) if is_float else np.rint(tensor * factor).astype(tensor.dtype)
            padded[name][tuple(place)] = tensor
    return padded


def _has_place(stored: Shape, taken: Shape, axis: int, filled: int) -> bool:
    """Return whether an adapter tensor (shape `stored`) fits a LoRA input (shape `taken`) with `filled` used ranks on `axis`."""
    return len(stored) == len(taken) and all(
        1 <= own <= most - filled if index == axis else own == most
        for index, (own, most) in enumerate(zip(stored, taken, strict=True))
    )
