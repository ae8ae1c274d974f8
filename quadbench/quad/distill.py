"""Distill: an adapter, a quantized graph and examples -> the adapter trained to lose less under the graph's frozen encodings.

Student: the graph itself, fake-quantized. Teacher: the float U-Net with the adapter as it came. Loss, as QUAD has it (arXiv
2603.29535, section 3.4): the mean squared difference of their eps, and beside it the diffusion loss. Only LoRA weights train.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import onnx
import torch

from quadbench.quad.adapters import Adapter, LoraPair, graph_tensors
from quadbench.quad.adapters.lora_profile import LoraProfile
from quadbench.quad.divergence import spread
from quadbench.quad.model.lora import input_names
from quadbench.quad.prepare import Prepared
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.fake_quant import FakeQuantGraph
from quadbench.quad.tasks.examples import Example, examples

log = logging.getLogger(__name__)
TRAINING_SEEDS, VALIDATION_SEEDS = (1, 2, 3, 4), (5,)  # added to those of the calibration items
VALIDATION_EXAMPLES = 32
EVALUATION_BATCH = 16
MINIMUM_GAIN_DB = 0.05  # less than this is no progress
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long and how hard. `learning_rate` is Adam's, as a share of each tensor's greatest weight; it falls along a cosine."""

    steps: int
    batch: int
    learning_rate: float
    diffusion_weight: float
    patience: int  # evaluations without progress before it stops
    seed: int
    evaluate_every: int = 25  # steps


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Of the adapter after so many steps: SQNR of eps against the teacher over the validation examples, in dB."""

    step: int
    sqnr_db: float


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """The adapter with the best validation, which may be the one that came in; `evaluations[0]` is that of the latter."""

    adapter: Adapter
    evaluations: tuple[Evaluation, ...]
    steps: int
    seconds: float

    @property
    def before_db(self) -> float:
        return self.evaluations[0].sqnr_db

    @property
    def after_db(self) -> float:
        return max(evaluation.sqnr_db for evaluation in self.evaluations)


def distill(
    adapter: Adapter,
    graph: FakeQuantGraph,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    encodings: Mapping[str, Encoding],
    training: Sequence[Example],
    validation: Sequence[Example],
    settings: Settings,
    checkpoint: Path | None = None,
    notify: Callable[[str], None] = lambda _progress: None,
) -> Distilled:
    """Train until `settings.steps`, or until validation has not improved for `patience` evaluations.

    With a `checkpoint` file that an interrupted call with the same arguments left, goes on from there.
    """
    limits = {name: encodings[name].scale * encodings[name].limit for name in shapes}
    fitted = {name: tensor.clamp(-limits[name], limits[name]) for name, tensor in graph_tensors(adapter, shapes).items()}
    units = {name: float(tensor.abs().max()) or 1.0 for name, tensor in fitted.items()}
    run = _Run(
        graph=graph,
        units=units,
        limits={name: limits[name] / unit for name, unit in units.items()},
        settings=settings,
        weights={name: tensor / units[name] for name, tensor in fitted.items()},
        trained=_own(adapter),
        notify=notify,
    )
    with torch.enable_grad():
        if checkpoint is not None and checkpoint.is_file():
            run.load(checkpoint)
        run.fit(training, validation, checkpoint)
    weights = {name: run.best[name] * units[name] for name in shapes}
    return Distilled(
        adapter=_with_weights(adapter, weights),
        evaluations=tuple(run.evaluations),
        steps=run.step,
        seconds=run.seconds,
    )


def distill_adapters(
    prepared: Prepared,
    lora: LoraProfile,
    unet: onnx.ModelProto,
    *,
    names: Sequence[str],
    settings: Settings,
    checkpoints: Mapping[str, Path],
    notify: Callable[[str], None],
) -> dict[str, Distilled]:
    """Train adapters one after the other under the quantized U-Net and the profile that it was written with."""
    graph, made = FakeQuantGraph(unet), {}
    for name in names:
        exact = prepared.adapters[name]
        validation = examples(prepared, exact, seeds=VALIDATION_SEEDS, noised=False)
        made[name] = distill(
            lora.adapters[name],
            graph,
            shapes=prepared.shapes,
            encodings=lora.encodings,
            training=examples(prepared, exact, seeds=TRAINING_SEEDS, noised=settings.diffusion_weight > 0),
            validation=[validation[i] for i in spread(len(validation), VALIDATION_EXAMPLES)],
            settings=settings,
            checkpoint=checkpoints[name],
            notify=_named(notify, f"distill {name}"),
        )
    return made


def _named(notify: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda progress: notify(f"{name}: {progress}")


def sqnr_db(graph: FakeQuantGraph, weights: Mapping[str, torch.Tensor], examples: Sequence[Example]) -> float:
    """Signal to quantization noise of eps over examples, in dB; weights are float LoRA inputs."""
    signal = noise = 0.0
    with torch.no_grad():
        for start in range(0, len(examples), EVALUATION_BATCH):
            batch = examples[start : start + EVALUATION_BATCH]
            exact = torch.cat([example.teacher for example in batch])
            signal += float(exact.square().sum())
            noise += float((graph(_stacked(batch) | dict(weights)) - exact).square().sum())
    return 10 * math.log10(signal / noise) if noise else math.inf


def _stacked(batch: Sequence[Example]) -> Tensors:
    """The inputs of several examples as one: (B, ...)."""
    return {name: torch.cat([torch.from_numpy(example.feed[name]) for example in batch]) for name in batch[0].feed}


@dataclass(kw_only=True)
class _Run:
    """One training under way. Each tensor is held in units of its greatest weight at the start, so that one step size fits all.

    `limits` are the shared ranges in these units; a range that another adapter has made wide says nothing of this one's weights.
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
        found = sqnr_db(self.graph, self._inputs(self.weights), validation)
        if not self.evaluations or found > max(e.sqnr_db for e in self.evaluations):
            self.best = {name: tensor.detach().clone() for name, tensor in self.weights.items()}
        self.evaluations.append(Evaluation(step=self.step, sqnr_db=found))

    def _is_stale(self) -> bool:
        """Whether the last `patience` evaluations brought nothing over those before."""
        earlier, recent = self.evaluations[: -self.settings.patience], self.evaluations[-self.settings.patience :]
        return bool(earlier) and max(e.sqnr_db for e in recent) < max(e.sqnr_db for e in earlier) + MINIMUM_GAIN_DB

    def _report(self) -> None:
        left_s = self.seconds / self.step * (self.settings.steps - self.step)
        reached = f"step {self.step} of {self.settings.steps}, {self.evaluations[-1].sqnr_db:.1f} dB"
        progress = f"{reached}, at most {left_s:.0f} s left"
        log.info("distill: %s", progress)
        self.notify(progress)

    def save(self, path: Path) -> None:
        """All that going on needs, whole or not at all."""
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
        state = torch.load(path, weights_only=True)
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.evaluations = [Evaluation(**fields) for fields in state["evaluations"]]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        with torch.no_grad():
            for name, tensor in state["weights"].items():
                self.weights[name].copy_(tensor)
        log.info("distill: goes on from step %d", self.step)


def _own(adapter: Adapter) -> tuple[str, ...]:
    """The LoRA inputs of the adapter's own sites; the others stay zero, and so does padding, whose gradient is zero."""
    return tuple(name for site in adapter.pairs for name in input_names(site))


def _with_weights(adapter: Adapter, weights: Mapping[str, torch.Tensor]) -> Adapter:
    pairs = {}
    for site, pair in adapter.pairs.items():
        down, up = (weights[name].detach() for name in input_names(site))
        pairs[site] = LoraPair(down=down[: pair.rank], up=up[:, : pair.rank])
    return Adapter(name=adapter.name, pairs=pairs)
