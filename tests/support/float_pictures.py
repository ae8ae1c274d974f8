"""Pictures of a tiny model's float graphs, run as a device runs them, to compare with those of diffusers' pipelines."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers import UNet2DConditionModel
from pydantic import TypeAdapter

from quadbench.artifacts import Component
from quadbench.quad.adapters.adapter import mix_adapters
from quadbench.quad.inputs import read_recipe
from quadbench.quad.items import Item, fixed_table, task_items
from quadbench.quad.model.foundation import Foundation, embedded_conditions
from quadbench.quad.model_files import AdapterFormat, AdapterSource
from quadbench.quad.prepare import BuildSteps, PreparedRecipe, prepare
from quadbench.quad.runner import Denoiser, GraphSession
from quadbench.quad.samplers.table import run_table
from quadbench.recipe import Task
from support.tiny_model import write_adapter

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
PROMPT, NEGATIVE = "noto apple", "twemoji pear"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A tiny model of one family: its folder, its LoRA, and its float graphs with that LoRA as inputs."""

    folder: Path
    lora: AdapterSource
    prepared: PreparedRecipe
    decoder: GraphSession

    def scheduled(self, scheduler: Mapping[str, object], folder: Path) -> Path:
        """Return a copy of the model's folder with another scheduler configuration."""
        copied = Path(shutil.copytree(self.folder, folder / "model"))
        index = json.loads((copied / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", scheduler["_class_name"]]
        (copied / "model_index.json").write_text(json.dumps(index))
        (copied / "scheduler/scheduler_config.json").write_text(json.dumps({**BETAS, **scheduler}))
        return copied


def prepared_model(folder: Path, scratch: Path) -> Model:
    """Write a LoRA, a negative prompt and a recipe for the model in a folder, and export its float graphs."""
    unet = UNet2DConditionModel.from_pretrained(folder / "model/unet")
    write_adapter(unet, folder / "adapters/first", r=3, lora_alpha=6, target_modules=["to_q", "to_k", "to_v", "conv1", "proj_in"])
    entries = [{"name": "000", "prompt": PROMPT, "negative_prompt": NEGATIVE}]
    (folder / "inputs").mkdir(exist_ok=True)
    (folder / "inputs/inputs.json").write_text(json.dumps(entries))
    document = yaml.safe_load((folder / "recipe.yaml").read_text())
    document["tasks"] = [_task(folder, {"scheme": "ed", "steps": 1}, guidance=1.0, adapter="first")]
    document["tasks"][0]["inputs"] = {"source": "folder", "path": "inputs"}
    document["adapters"] = {"first": document["adapters"]["first"]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
    with torch.no_grad():
        prepared = prepare(read_recipe(folder / "recipe.yaml"), BuildSteps(), scratch)
    lora = AdapterSource(format=AdapterFormat.PEFT, path=folder / "adapters/first")
    decoder = GraphSession(prepared.models[Component.VAE_DECODER])
    return Model(folder=folder / "model", lora=lora, prepared=prepared, decoder=decoder)


def _task(folder: Path, sampler: Mapping[str, Any], *, guidance: float, adapter: str | None) -> dict[str, Any]:
    inputs = {"source": "folder", "path": folder / "inputs"}
    spec = {"name": "it", "kind": "text-to-image", "adapter": adapter, "guidance": guidance}
    return spec | {"sampler": dict(sampler), "inputs": inputs}


def task_of(model: Model, sampler: Mapping[str, Any], *, guidance: float, adapter: str | None) -> Task:
    spec = _task(model.folder.parent, sampler, guidance=guidance, adapter=adapter)
    task: Task = TypeAdapter(Task).validate_python(spec)
    return task


def drawn(model: Model, foundation: Foundation, task: Task, negative: str | None = NEGATIVE) -> tuple[Item, np.ndarray]:
    """Return a task's item and the picture that the float graphs draw of it, run as a device runs them."""
    (item,) = task_items(task, foundation, calibration_samples=1).evaluation
    item = replace(item, negative_prompt=negative, negative_tokens=foundation.tokenize_negative(negative))
    table = fixed_table(task, foundation)
    assert table
    encoders = replace(model.prepared.encoders, foundation=foundation)
    lora = model.prepared.feed(mix_adapters(model.prepared.adapters, task.adapter))
    condition = encoders.condition(item, embedded_conditions(foundation, table.timesteps), lora, task.guidance)
    denoiser = Denoiser(unet=model.prepared.unet, condition=condition)
    noise = item.noise(foundation, len(table.steps))
    latent = run_table(table, denoiser, latent=torch.zeros_like(noise[:1]), noise=noise)
    decoded = model.decoder({"latent": latent.numpy()})
    pixels: np.ndarray = ((decoded[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return item, pixels
