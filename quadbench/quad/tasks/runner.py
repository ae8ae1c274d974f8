"""Runner: float graphs, text and images -> embeddings, latents and U-Net predictions, through ONNX Runtime."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import torch

from quadbench.quad.model.initializers import open_session

Feed = dict[str, np.ndarray]


class GraphSession:
    """One graph with its single output, loaded when it is first run."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._session: onnxruntime.InferenceSession | None = None

    def __call__(self, feed: Mapping[str, np.ndarray]) -> torch.Tensor:
        """Return the graph's output for a feed."""
        if self._session is None:
            self._session = open_session(self._model)
        return torch.from_numpy(self._session.run(None, dict(feed))[0])

    def release(self) -> None:
        """Give the session's memory back. The next run loads it again."""
        self._session = None


@dataclass(frozen=True, kw_only=True)
class Condition:
    """The U-Net's inputs beside the sample: time features (steps, C), text with and without prompt (1, T, D), LoRA."""

    time_features: torch.Tensor
    text: torch.Tensor
    negative_text: torch.Tensor
    lora: Feed
    guidance: float


@dataclass(kw_only=True)
class Denoiser:
    """The U-Net as a sampler calls it. With `record`, `feeds` keeps all its inputs but LoRA, and `eps` its outputs."""

    unet: Callable[[Feed], torch.Tensor]
    condition: Condition
    record: bool = False
    feeds: list[Feed] = field(default_factory=list)
    eps: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, step: int, sample: torch.Tensor) -> torch.Tensor:
        """Return eps (1, 4, h, w); with guidance g != 1 eps_u + g (eps_c - eps_u) (Ho and Salimans 2022, arXiv 2207.12598)."""
        conditioned = self._run(step, sample, self.condition.text)
        if self.condition.guidance == 1.0:
            return conditioned
        free = self._run(step, sample, self.condition.negative_text)
        return free + self.condition.guidance * (conditioned - free)

    def _run(self, step: int, sample: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Run the U-Net once, with one of the two texts."""
        feed = {
            "sample": sample.numpy(),
            "time_features": self.condition.time_features[step : step + 1].numpy(),
            "encoder_hidden_states": text.numpy(),
        }
        eps = self.unet(feed | self.condition.lora)
        if self.record:
            self.feeds.append(feed)
            self.eps.append(eps)
        return eps


def as_feed(tensors: Mapping[str, torch.Tensor]) -> Feed:
    """Return the tensors as arrays."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def token_feed(input_ids: Sequence[int]) -> Feed:
    """Return the text encoder's feed, int32 (1, T)."""
    return {"input_ids": np.array([input_ids], np.int32)}
