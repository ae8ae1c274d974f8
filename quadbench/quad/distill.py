"""Distillation: training LoRA adapters under a quantized graph's frozen encodings, so that quantization costs less quality."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import onnx
import torch

from quadbench.quad.adapters.adapter import Adapter, LoraPair, graph_tensors
from quadbench.quad.adapters.lora_profile import LoraProfile
from quadbench.quad.divergence import decibels, spread
from quadbench.quad.items import CalibrationRun, Item, PreparedTask, run_calibration
from quadbench.quad.model.lora import input_names
from quadbench.quad.prepare import PreparedRecipe
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.fake_quant import FakeQuantGraph, Tensors
from quadbench.quad.runner import Feed

SEED_STRIDE = 10_000  # inputs have consecutive seeds, so smaller shifts would repeat another input's noise
ItemsByTask = Mapping[str, Sequence[Item]]
log = logging.getLogger(__name__)
EVALUATION_BATCH = 16
MINIMUM_GAIN_DB = 0.05  # smaller gains do not count as progress
TRAINING_SEEDS, VALIDATION_SEEDS = (1, 2, 3, 4), (5,)  # shifts of the calibration inputs' seeds, in SEED_STRIDE
VALIDATION_EXAMPLES = 32


@dataclass(frozen=True, kw_only=True)
class Example:
    """A training example: U-Net inputs `feed` without LoRA tensors, and the float U-Net's noise prediction `teacher` (1, 4, h,
    w). `target` (1, 4, h, w) is what a perfect U-Net would predict for a latent with new noise, for most models that noise; it is
    None if `feed` was recorded from a sampler's run.
    """

    feed: Feed
    teacher: torch.Tensor
    target: torch.Tensor | None


@dataclass(frozen=True, kw_only=True)
class DataSplit:
    """The calibration inputs of an adapter's tasks, split into training and validation without shared images or prompts."""

    training: ItemsByTask
    validation: ItemsByTask


def split_items(prepared: PreparedRecipe, adapter: Adapter) -> DataSplit:
    """Split the calibration inputs of the tasks that use the adapter into a DataSplit. If no task uses it, split those of all
    tasks. Per task, the last third of the input names (rounded up) is for validation, the rest for training.
    """
    own = [task for task in prepared.tasks if adapter.name in task.task.adapter] or prepared.tasks
    items = {task.task.name: task.items.calibration for task in own}
    names = {task: list(dict.fromkeys(item.name for item in of_task)) for task, of_task in items.items()}
    judging = {task: of_task[len(of_task) - math.ceil(len(of_task) / 3) :] for task, of_task in names.items()}
    return DataSplit(
        training={task: [item for item in of_task if item.name not in judging[task]] for task, of_task in items.items()},
        validation={task: [item for item in of_task if item.name in judging[task]] for task, of_task in items.items()},
    )


def examples(
    prepared: PreparedRecipe, adapter: Adapter, items: ItemsByTask, *, seeds: Sequence[int], noised: bool
) -> list[Example]:
    """Run the float sampler with an adapter on each input, once per element of `seeds`: a shift of noise seeds, in SEED_STRIDE.
    Return an Example per U-Net call. If `noised`, append another per final latent and time step, with new noise in the latent.
    """
    lora = prepared.feed(adapter)
    collected: list[Example] = []
    for task in (task for task in prepared.tasks if items.get(task.task.name)):
        for seed in seeds:
            moved = reseeded(task, items[task.task.name], seed)
            visited = run_calibration(moved, prepared.encoders, prepared.unet, lora)
            seen = zip(visited.feeds, visited.eps, strict=True)
            collected += [Example(feed=feed, teacher=eps, target=None) for feed, eps in seen]
            anew = _noised(prepared, moved, visited, seed) if noised else ()
            collected += [Example(feed=feed, teacher=prepared.unet(feed | lora), target=target) for feed, target in anew]
    return collected


def reseeded(task: PreparedTask, items: Sequence[Item], seed: int) -> PreparedTask:
    """Return a copy of a task with `items` as calibration inputs. Each input's seed is raised by `seed` times SEED_STRIDE."""
    moved = tuple(replace(item, seed=item.seed + SEED_STRIDE * seed) for item in items)
    return replace(task, items=replace(task.items, calibration=moved))


def _noised(
    prepared: PreparedRecipe, task: PreparedTask, visited: CalibrationRun, seed: int
) -> Iterator[tuple[Feed, torch.Tensor]]:
    """Yield a pair (U-Net inputs, right prediction) for each final latent z in `visited` and each time step. The inputs have the
    prompt of z, and z with as much new noise as the model's schedule has at the step.
    """
    steps = len(task.table.timesteps)
    runs = len(visited.feeds) // (len(visited.latents) * steps)  # 2 with guidance: with the prompt, then without
    generator = torch.Generator().manual_seed(seed)
    for item, latent in enumerate(visited.latents):
        for step, timestep in enumerate(task.table.timesteps):
            noise = torch.randn(latent.shape, generator=generator)
            sample, target = (a * latent + b * noise for a, b in prepared.foundation.schedule.noised(timestep))
            yield visited.feeds[(item * steps + step) * runs] | {"sample": sample.numpy()}, target


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a distillation. `learning_rate` (Adam, cosine decay) is relative to each LoRA tensor's greatest weight."""

    steps: int
    batch: int
    learning_rate: float
    diffusion_weight: float
    patience: int  # evaluations without progress before training stops
    seed: int
    evaluate_every: int = 25  # steps


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A validation result after some training steps: the SQNR in dB of the noise predictions against the float U-Net's."""

    step: int
    sqnr_db: float


@dataclass(kw_only=True)
class Training:
    """The state of training one adapter. `weights` are the LoRA tensors, each divided by its greatest initial magnitude in
    `units`, so that one step size fits all. `limits` are the quantization ranges of the tensors, divided by the same `units`.
    """

    graph: FakeQuantGraph
    units: Mapping[str, float]
    limits: Mapping[str, float]
    settings: TrainingSettings
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
        """Train until the last step or until validation stalls. Every `evaluate_every` steps, validate and write `checkpoint`."""
        started, before = time.monotonic(), self.seconds
        if not self.evaluations:
            self._evaluate(validation)
        while self.step < self.settings.steps and not self._is_stale():
            self._train(training)
            if self.step % self.settings.evaluate_every == 0 or self.step == self.settings.steps:
                self._evaluate(validation)
                self.seconds = before + time.monotonic() - started
                left_s = self.seconds / self.step * (self.settings.steps - self.step)
                reached = f"step {self.step} of {self.settings.steps}, {self.evaluations[-1].sqnr_db:.1f} dB"
                progress = f"{reached}, at most {left_s:.0f} s left"
                log.info("distill: %s", progress)
                self.notify(progress)
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
        known = [i for i, example in enumerate(batch) if example.target is not None]
        if known and self.settings.diffusion_weight:
            target = torch.cat([right for example in batch if (right := example.target) is not None])
            loss = loss + self.settings.diffusion_weight * (eps[known] - target).square().mean()
        return loss

    def _inputs(self, weights: Tensors) -> Tensors:
        return {name: weights[name] * self.units[name] for name in weights}

    def _evaluate(self, validation: Sequence[Example]) -> None:
        reached_db = sqnr_db(self.graph, self._inputs(self.weights), validation)
        if not self.evaluations or reached_db > max(e.sqnr_db for e in self.evaluations):
            self.best = {name: tensor.detach().clone() for name, tensor in self.weights.items()}
        self.evaluations.append(Evaluation(step=self.step, sqnr_db=reached_db))

    def _is_stale(self) -> bool:
        """Return whether the last `patience` evaluations raised the best validation SQNR by less than MINIMUM_GAIN_DB."""
        earlier, recent = self.evaluations[: -self.settings.patience], self.evaluations[-self.settings.patience :]
        return bool(earlier) and max(e.sqnr_db for e in recent) < max(e.sqnr_db for e in earlier) + MINIMUM_GAIN_DB

    def save(self, path: Path) -> None:
        """Write the training state to a checkpoint file, atomically."""
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
        """Restore the training state from a checkpoint file."""
        state = torch.load(path, weights_only=True)
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.evaluations = [Evaluation(**fields) for fields in state["evaluations"]]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        with torch.no_grad():
            for name, tensor in state["weights"].items():
                self.weights[name].copy_(tensor)
        log.info("distill: resuming from step %d", self.step)


def sqnr_db(graph: FakeQuantGraph, weights: Mapping[str, torch.Tensor], examples: Sequence[Example]) -> float:
    """Return the SQNR in dB of quantized U-Net `graph` with LoRA inputs `weights`, against the float outputs in `examples`."""
    signal = noise = 0.0
    with torch.no_grad():
        for start in range(0, len(examples), EVALUATION_BATCH):
            batch = examples[start : start + EVALUATION_BATCH]
            exact = torch.cat([example.teacher for example in batch])
            signal += float(exact.square().sum())
            noise += float((graph(_stacked(batch) | dict(weights)) - exact).square().sum())
    return decibels(signal, noise)


def _stacked(batch: Sequence[Example]) -> Tensors:
    """Concatenate the U-Net inputs of several examples. Return a dict from input name to tensor (batch size, ...)."""
    return {name: torch.cat([torch.from_numpy(example.feed[name]) for example in batch]) for name in batch[0].feed}


@dataclass(frozen=True, kw_only=True)
class Student:
    """The quantized U-Net for which adapters are trained, with the shapes and encodings of its LoRA inputs."""

    graph: FakeQuantGraph
    shapes: Mapping[str, tuple[int, ...]]
    encodings: Mapping[str, Encoding]


@dataclass(frozen=True, kw_only=True)
class DistilledAdapter:
    """A trained adapter, with the weights that had the best validation SQNR. These can be the weights before training."""

    adapter: Adapter
    evaluations: tuple[Evaluation, ...]
    steps: int
    seconds: float

    @property
    def before_db(self) -> float:
        """Return the validation SQNR in dB of the adapter before training."""
        return self.evaluations[0].sqnr_db

    @property
    def after_db(self) -> float:
        """Return the validation SQNR in dB of the weights that training keeps: the highest of all evaluations."""
        return max(evaluation.sqnr_db for evaluation in self.evaluations)


def distill_adapters(
    prepared: PreparedRecipe,
    lora: LoraProfile,
    unet: onnx.ModelProto,
    *,
    names: Sequence[str],
    settings: TrainingSettings,
    checkpoints: Mapping[str, Path],
    notify: Callable[[str], None],
) -> dict[str, DistilledAdapter]:
    """Train the named adapters one after another under a quantized U-Net with fixed LoRA encodings. Return a dict from adapter
    name to DistilledAdapter. Early stopping and the choice of weights use validation inputs that training does not see.
    """
    student = Student(graph=FakeQuantGraph(unet), shapes=prepared.shapes, encodings=lora.encodings)
    distilled = {}
    for name in names:
        exact = prepared.adapters[name]
        items = split_items(prepared, exact)
        validation = examples(prepared, exact, items.validation, seeds=VALIDATION_SEEDS, noised=False)
        distilled[name] = distill(
            lora.adapters[name],
            student,
            training=examples(prepared, exact, items.training, seeds=TRAINING_SEEDS, noised=settings.diffusion_weight > 0),
            validation=[validation[i] for i in spread(len(validation), VALIDATION_EXAMPLES)],
            settings=settings,
            checkpoint=checkpoints[name],
            notify=_named(notify, f"distill {name}"),
        )
    return distilled


def distill(
    adapter: Adapter,
    student: Student,
    *,
    training: Sequence[Example],
    validation: Sequence[Example],
    settings: TrainingSettings,
    checkpoint: Path | None = None,
    notify: Callable[[str], None] = lambda _progress: None,
) -> DistilledAdapter:
    """Train an adapter for `settings.steps` steps, or until validation has not improved for `settings.patience` evaluations.
    Return a DistilledAdapter. Resume from file `checkpoint` if an interrupted call with the same arguments left it.
    """
    limits = {name: student.encodings[name].scale * student.encodings[name].limit for name in student.shapes}
    tensors = graph_tensors(adapter, student.shapes)
    clipped = {name: tensor.clamp(-limits[name], limits[name]) for name, tensor in tensors.items()}
    units = {name: float(tensor.abs().max()) or 1.0 for name, tensor in clipped.items()}
    run = Training(
        graph=student.graph,
        units=units,
        limits={name: limits[name] / unit for name, unit in units.items()},
        settings=settings,
        weights={name: tensor / units[name] for name, tensor in clipped.items()},
        # Only the adapter's own sites are trained: other sites stay zero, and so does padding, whose gradient is zero.
        trained=tuple(name for site in adapter.pairs for name in input_names(site)),
        notify=notify,
    )
    with torch.enable_grad():
        if checkpoint is not None and checkpoint.is_file():
            run.load(checkpoint)
        run.fit(training, validation, checkpoint)
    pairs = {}
    for site, pair in adapter.pairs.items():
        down, up = (run.best[name].detach() * units[name] for name in input_names(site))
        pairs[site] = LoraPair(down=down[: pair.rank], up=up[:, : pair.rank])  # without the padding
    return DistilledAdapter(
        adapter=replace(adapter, pairs=pairs),
        evaluations=tuple(run.evaluations),
        steps=run.step,
        seconds=run.seconds,
    )


def _named(notify: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda progress: notify(f"{name}: {progress}")
