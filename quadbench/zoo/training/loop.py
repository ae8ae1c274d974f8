"""Loop: a loss function and its parameters -> trained parameters, seeded and resumable."""

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

LossFunction = Callable[[torch.Generator], torch.Tensor]


def train(
    modules: dict[str, nn.Module],
    loss_of_batch: LossFunction,
    *,
    folder: Path,
    steps: int,
    learning_rate: float,
    seed: int,
    warmup: int = 100,
    ema_decay: float = 0.999,
    minutes: float = math.inf,
    after_step: Callable[[int], None] | None = None,
) -> dict[str, dict[str, torch.Tensor]]:
    """Minimise `loss_of_batch` over the modules' trainable parameters; return their EMA state per module.

    Cosine decay from `learning_rate` to a tenth of it. A checkpoint every 250 steps in `folder/checkpoint.pt`: calling again with
    the same folder goes on where it stopped. `minutes` bounds this call, not the sum of all calls.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    ema = {name: _trainable(module) for name, module in modules.items()}
    step, seconds = 0, 0.0
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        step, seconds, ema = state["step"], state["seconds"], state["ema"]
        for name, module in modules.items():
            module.load_state_dict(state["modules"][name], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
    started, running = time.monotonic(), 0.0
    while step < steps and time.monotonic() - started < 60 * minutes:
        for group in optimizer.param_groups:
            progress = step / steps
            group["lr"] = learning_rate * min(1, (step + 1) / warmup) * (0.55 + 0.45 * math.cos(math.pi * progress))
        loss = loss_of_batch(generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        _update_ema(ema, modules, min(ema_decay, step / (step + 10)))
        if after_step:
            after_step(step)
        running = loss.item() if step == 1 else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            elapsed = seconds + time.monotonic() - started
            line = {"step": step, "loss": round(running, 5), "seconds": round(elapsed, 1)}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if step % 250 == 0 or step == steps:
            temporary = checkpoint.with_suffix(".tmp")
            torch.save(
                {
                    "step": step,
                    "seconds": seconds + time.monotonic() - started,
                    "ema": ema,
                    "modules": {name: _trainable(module) for name, module in modules.items()},
                    "optimizer": optimizer.state_dict(),
                    "generator": generator.get_state(),
                },
                temporary,
            )
            temporary.replace(checkpoint)
    return ema


def _trainable(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def _update_ema(ema: dict[str, dict[str, torch.Tensor]], modules: dict[str, nn.Module], decay: float) -> None:
    for name, module in modules.items():
        for key, parameter in module.named_parameters():
            if parameter.requires_grad:
                ema[name][key].lerp_(parameter.detach(), 1 - decay)


def pick(items: list, count: int, generator: torch.Generator) -> Iterable:  # type: ignore[type-arg]
    """`count` random items, with replacement."""
    return (items[int(i)] for i in torch.randint(len(items), (count,), generator=generator))
