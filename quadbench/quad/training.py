"""Training: LoRA weights, a fake-quantized U-Net and examples -> the weights with the best validation.

Loss, as QUAD has it (arXiv 2603.29535, section 3.4): the mean squared difference of the student's eps from the teacher's, and
beside it the diffusion loss.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from quadbench.quad.divergence import decibels
from quadbench.quad.quantize.fake_quant import FakeQuantGraph, Tensors
from quadbench.quad.tasks.examples import Example

log = logging.getLogger(__name__)
EVALUATION_BATCH = 16
MINIMUM_GAIN_DB = 0.05  # less than this is no progress


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The extent of a training.

    `learning_rate` is Adam's, as a share of each tensor's greatest weight; it falls along a cosine.
    """

    steps: int
    batch: int
    learning_rate: float
    diffusion_weight: float
    patience: int  # evaluations without progress before it stops
    seed: int
    evaluate_every: int = 25  # steps


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The weights after so many steps: SQNR of eps against the teacher over the validation examples, in dB."""

    step: int
    sqnr_db: float


@dataclass(kw_only=True)
class Training:
    """One training under way. Each tensor is in units of its greatest weight at the start, so that one step size fits all.

    `limits` are the shared ranges in these units; they may be far from 1 where another adapter widened the range.
    """

    graph: FakeQuantGraph
    units: Mapping[str, float]
    limits: Mapping[str, float]
    settings: Settings
    weights: Tensors
    trained: tuple[str, ...]
    notify: Callable[[str], None]
    step: int = 0
    seconds: float = 0.0
    best: Tensors = field(init=False)
    evaluations: list[Evaluation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.best = {name: tensor.clone() for name, tensor in self.weights.items()}
        for name in self.trained:
            self.weights[name].requires_grad_(True)
        self.optimizer = torch.optim.Adam([self.weights[name] for name in self.trained], lr=self.settings.learning_rate)
        self.generator = torch.Generator().manual_seed(self.settings.seed)

    def fit(self, training: Sequence[Example], validation: Sequence[Example], checkpoint: Path | None) -> None:
        """Train to the end, with an evaluation and a checkpoint every few steps."""
        started, before = time.monotonic(), self.seconds
        if not self.evaluations:
            self._evaluate(validation)
        while self.step < self.settings.steps and not self._is_stale():
            self._train(training)
            if self.step % self.settings.evaluate_every == 0 or self.step == self.settings.steps:
                self._evaluate(validation)
                self.seconds = before + time.monotonic() - started
                self._report()
                if checkpoint is not None:
                    self.save(checkpoint)

    def _train(self, training: Sequence[Example]) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * (0.55 + 0.45 * math.cos(math.pi * self.step / self.settings.steps))
        chosen = torch.randint(len(training), (self.settings.batch,), generator=self.generator).tolist()
        loss = self._loss([training[i] for i in chosen])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for name in self.trained:
                self.weights[name].clamp_(-self.limits[name], self.limits[name])
        self.step += 1

    def _loss(self, batch: Sequence[Example]) -> torch.Tensor:
        eps = self.graph(_stacked(batch) | self._inputs(self.weights))
        loss = (eps - torch.cat([example.teacher for example in batch])).square().mean()
        known = [i for i, example in enumerate(batch) if example.noise is not None]
        if known and self.settings.diffusion_weight:
            noise = torch.cat([n for example in batch if (n := example.noise) is not None])
            loss = loss + self.settings.diffusion_weight * (eps[known] - noise).square().mean()
        return loss

    def _inputs(self, weights: Tensors) -> Tensors:
        return {name: weights[name] * self.units[name] for name in weights}

    def _evaluate(self, validation: Sequence[Example]) -> None:
        reached_db = sqnr_db(self.graph, self._inputs(self.weights), validation)
        if not self.evaluations or reached_db > max(e.sqnr_db for e in self.evaluations):
            self.best = {name: tensor.detach().clone() for name, tensor in self.weights.items()}
        self.evaluations.append(Evaluation(step=self.step, sqnr_db=reached_db))

    def _is_stale(self) -> bool:
        """Say whether the last `patience` evaluations brought nothing over those before."""
        earlier, recent = self.evaluations[: -self.settings.patience], self.evaluations[-self.settings.patience :]
        return bool(earlier) and max(e.sqnr_db for e in recent) < max(e.sqnr_db for e in earlier) + MINIMUM_GAIN_DB

    def _report(self) -> None:
        left_s = self.seconds / self.step * (self.settings.steps - self.step)
        reached = f"step {self.step} of {self.settings.steps}, {self.evaluations[-1].sqnr_db:.1f} dB"
        progress = f"{reached}, at most {left_s:.0f} s left"
        log.info("distill: %s", progress)
        self.notify(progress)

    def save(self, path: Path) -> None:
        """Write what it takes to go on from here, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "weights": {name: tensor.detach() for name, tensor in self.weights.items()},
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "evaluations": [asdict(evaluation) for evaluation in self.evaluations],
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.evaluations = [Evaluation(**fields) for fields in state["evaluations"]]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        with torch.no_grad():
            for name, tensor in state["weights"].items():
                self.weights[name].copy_(tensor)
        log.info("distill: goes on from step %d", self.step)


def sqnr_db(graph: FakeQuantGraph, weights: Mapping[str, torch.Tensor], examples: Sequence[Example]) -> float:
    """Return the signal to quantization noise of eps over examples, in dB; `weights` are float LoRA inputs.

    Raises:
        ValueError: there are no examples.
    """
    if not examples:
        raise ValueError("no examples to judge by")
    signal = noise = 0.0
    with torch.no_grad():
        for start in range(0, len(examples), EVALUATION_BATCH):
            batch = examples[start : start + EVALUATION_BATCH]
            exact = torch.cat([example.teacher for example in batch])
            signal += float(exact.square().sum())
            noise += float((graph(_stacked(batch) | dict(weights)) - exact).square().sum())
    return decibels(signal, noise)


def _stacked(batch: Sequence[Example]) -> Tensors:
    """Return the inputs of several examples as one: (B, ...)."""
    return {name: torch.cat([torch.from_numpy(example.feed[name]) for example in batch]) for name in batch[0].feed}
