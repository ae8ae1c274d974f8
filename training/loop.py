"""Loop: a loss function, its modules and a plan -> trained parameters, seeded, averaged and resumable."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from quadbench.errors import QuadbenchError

Item = TypeVar("Item")
LossFunction = Callable[[torch.Generator], torch.Tensor]
Figures = dict[str, float]
Averages = dict[str, dict[str, torch.Tensor]]
CHECKPOINT_S, LOG_STEPS = 180.0, 50


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The steps, rates and seed by which one stage is trained.

    The learning rate rises over `warmup` steps and falls along a cosine to `last_rate` of its peak.
    """

    steps: int
    batch: int
    learning_rate: float
    seed: int
    warmup: int = 100
    last_rate: float = 0.02
    ema_decay: float = 0.999

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / self.steps)
        return self.learning_rate * min(1, (step + 1) / self.warmup) * (self.last_rate + (1 - self.last_rate) * cosine)


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """The folder, device and limits of a stage's training.

    The folder is that of its checkpoint and log; `minutes` bounds this call, not the sum of all calls. A preview takes what there
    is when they are over. `most` bounds steps and pictures, for trying out whether everything runs.
    """

    folder: Path
    minutes: float = math.inf
    is_preview: bool = False
    most: int | None = None

    def stage(self, name: str) -> "Workbench":
        """The same with a folder of its own."""
        return replace(self, folder=self.folder / name)

    def bounded(self, count: int) -> int:
        """So many steps or pictures, or fewer."""
        return count if self.most is None else min(count, self.most)

    def few(self, items: list[Item]) -> list[Item]:
        """All of them, or as many as are allowed."""
        return items[: self.bounded(len(items))]


class UnfinishedError(QuadbenchError):
    """A stage stopped before its planned end; its checkpoint holds what it has."""


def device() -> torch.device:
    """A CUDA device if there is one, else the CPU. Random numbers are drawn on the CPU, so both see the same batches."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def reduced() -> Iterator[None]:
    """Matrix products and convolutions in bfloat16, and attention as plain products.

    Of 64 tokens a fused attention takes a CPU longer: a step of the base took 1.36 s of one core with it and 1.05 s without.
    """
    with torch.autocast(device().type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield


def train(
    modules: dict[str, nn.Module],
    loss_of_batch: LossFunction,
    plan: TrainingPlan,
    workbench: Workbench,
    *,
    figures: Callable[[], Figures] | None = None,
) -> None:
    """Minimise `loss_of_batch` over the modules' trainable parameters and leave their moving average in them.

    A checkpoint is written every three minutes and at the end, under a temporary name first: calling again with the same folder
    goes on where it stopped, with the same random numbers. `figures` of the averaged modules go to the log with each checkpoint.

    Raises:
        UnfinishedError: the workbench's time is up before the plan's last step, and no preview is wanted.
    """
    plan = replace(plan, steps=workbench.bounded(plan.steps))
    workbench.folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    generator = torch.Generator().manual_seed(plan.seed)
    ema = {name: _trainable(module) for name, module in modules.items()}
    step, seconds, running = 0, 0.0, math.nan
    checkpoint = workbench.folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device())
        step, seconds, running, ema = state["step"], state["seconds"], state["running"], state["ema"]
        _load(modules, state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"].cpu())
    started = saved = time.monotonic()

    def save() -> None:
        state = {
            "step": step,
            "seconds": seconds + time.monotonic() - started,
            "running": running,
            "ema": ema,
            "modules": {name: _trainable(module) for name, module in modules.items()},
            "optimizer": optimizer.state_dict(),
            "generator": generator.get_state(),
        }
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        if figures:
            _load(modules, ema)
            _log(workbench.folder, {"step": step} | {name: round(value, 4) for name, value in figures().items()})
            _load(modules, state["modules"])

    def is_late() -> bool:
        return time.monotonic() - started >= 60 * workbench.minutes

    while step < plan.steps and not is_late():
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        loss = loss_of_batch(generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        _update_ema(ema, modules, min(plan.ema_decay, step / (step + 10)))
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        if step % LOG_STEPS == 0:
            elapsed = seconds + time.monotonic() - started
            _log(workbench.folder, {"step": step, "loss": round(running, 5), "seconds": round(elapsed, 1)})
        if time.monotonic() - saved > CHECKPOINT_S or step == plan.steps or is_late():
            save()
            saved = time.monotonic()
    if step < plan.steps and not workbench.is_preview:
        message = f"'{workbench.folder.name}' is at step {step} of {plan.steps}"
        raise UnfinishedError(message, hint="the same command goes on from there")
    _load(modules, ema)


@torch.no_grad()
def mean_loss(loss_of_batch: LossFunction, batches: int = 4) -> Figures:
    """The loss over the same few batches each time, as a figure for the log."""
    generator = torch.Generator().manual_seed(0)
    return {"loss of the average": sum(loss_of_batch(generator).item() for _ in range(batches)) / batches}


def _trainable(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def _load(modules: dict[str, nn.Module], states: Averages) -> None:
    for name, module in modules.items():
        module.load_state_dict(states[name], strict=False)


@torch.no_grad()
def _update_ema(ema: Averages, modules: dict[str, nn.Module], decay: float) -> None:
    for name, module in modules.items():
        for key, parameter in module.named_parameters():
            if parameter.requires_grad:
                ema[name][key].lerp_(parameter.detach(), 1 - decay)


def _log(folder: Path, line: dict[str, float]) -> None:
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
