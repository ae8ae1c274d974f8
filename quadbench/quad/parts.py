"""Build parts: float graphs, sampler runs, value ranges and reference images, which later builds reuse where nothing changed.

The key of a part is the digest of the values that it is computed from, of the foundation model, and of the code and packages that
compute it. So one more adapter or prompt leaves the keys of all other parts as they are.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from PIL import Image
from pydantic import BaseModel
from safetensors.numpy import load_file, save_file

from quadbench.artifacts import Component
from quadbench.quad.adapters.loading import sites_of_unet
from quadbench.quad.items import (
    CalibrationRun,
    Encoders,
    ItemSplit,
    PreparedTask,
    Unet,
    fixed_table,
    prepare_task,
    run_calibration,
    start_keys,
)
from quadbench.quad.model.float_graphs import export_component, export_unet
from quadbench.quad.model.foundation import Foundation, embedded_conditions
from quadbench.quad.model.initializers import keep_graph, kept_graph
from quadbench.quad.model_files import AdapterSource, adapter_digests
from quadbench.quad.part_store import PartStore
from quadbench.quad.quantize.calibration import Remember
from quadbench.quad.reference import reference_for
from quadbench.quad.runner import Feed
from quadbench.quad.samplers.table import read_table
from quadbench.recipe import Task
from quadbench.results.digests import code_digests, digest_of, sha256_of

_RANK = 2  # of the exported U-Net's LoRA inputs, at all layers; `lora_sites.with_ranks` makes a recipe's graph of it
_ARRAYS, _TABLE = "arrays.safetensors", "table.json"
_RUNS = "quadbench.quad.items"  # the module that runs samplers
Graphs = Mapping[Component, str]  # keys of graphs


@dataclass(frozen=True, kw_only=True)
class BuildParts:
    """The parts of one recipe's builds. `foundation` is the digest of the foundation model and of the packages that read it."""

    store: PartStore
    foundation: str

    def key(self, module: str, *values: object) -> str:
        """Return the digest of values and of all that they are computed with: foundation, packages, and the code of `module`."""
        code = code_digests(module) | {__name__: sha256_of(Path(__file__))}
        return digest_of({"foundation": self.foundation, "code": code, "values": content_digest(values)})

    def graph(self, foundation: Foundation, component: Component) -> tuple[ModelProto, str]:
        """Return the float graph of a pipeline part and its key. A U-Net has LoRA inputs of rank _RANK at all layers."""
        key = self.key("quadbench.quad.model.float_graphs", component.value)

        def make(folder: Path) -> None:
            if component is Component.UNET:
                ranks = dict.fromkeys(sorted(sites_of_unet(foundation.skeleton).slots), _RANK)
                model = export_unet(foundation, foundation.unet, ranks, self.store.scratch)
            else:
                model = export_component(foundation, component, self.store.scratch)
            keep_graph(model, folder)

        return kept_graph(self.store.folder("graph", {"key": key}, make)), key

    def task(self, task: Task, items: ItemSplit, encoders: Encoders, unet: Unet, lora: Feed, graphs: Graphs) -> PreparedTask:
        """Return a PreparedTask, as `prepare_task` makes it. `graphs` has the keys of all graphs that a task runs."""
        if fixed_table(task, encoders.foundation) is not None:
            return prepare_task(task, items, encoders, unet, lora)
        key = self.key(_RUNS, graphs, task.sampler, task.guidance, start_keys(task), items.calibration, lora)

        def make(folder: Path) -> None:
            fitted = prepare_task(task, items, encoders, unet, lora).table
            (folder / _TABLE).write_text(json.dumps(asdict(fitted)))

        table = read_table(self.store.folder("table", {"key": key}, make) / _TABLE)
        embedded = embedded_conditions(encoders.foundation, table.timesteps)
        return PreparedTask(task=task, table=table, embedded=embedded, items=items)

    def run(self, task: PreparedTask, encoders: Encoders, unet: Unet, lora: Feed, graphs: Graphs) -> CalibrationRun:
        """Return the CalibrationRun of a task's calibration inputs, as `run_calibration` makes it."""
        key = self.key(_RUNS, graphs, task.table, task.embedded, task.task.guidance, task.items.calibration, lora)

        def make(folder: Path) -> None:
            run = run_calibration(task, encoders, unet, lora)
            arrays = {f"feeds.{i}.{name}": value for i, feed in enumerate(run.feeds) for name, value in feed.items()}
            arrays |= {f"eps.{i}": value.numpy() for i, value in enumerate(run.eps)}
            _save(arrays | {f"latents.{i}": value.numpy() for i, value in enumerate(run.latents)}, folder)

        arrays = load_file(self.store.folder("run", {"key": key}, make) / _ARRAYS)
        by_kind: dict[str, dict[int, Any]] = {"feeds": {}, "eps": {}, "latents": {}}
        for name, value in arrays.items():
            kind, number, *rest = name.split(".", 2)
            if rest:
                by_kind[kind].setdefault(int(number), {})[rest[0]] = value
            else:
                by_kind[kind][int(number)] = torch.from_numpy(value)
        return CalibrationRun(**{kind: [values[i] for i in sorted(values)] for kind, values in by_kind.items()})

    def remember(self, graph: str) -> Remember:
        """Return a function that stores what calibration observes of a graph. `graph` is the graph's key."""

        def remember(kind: str, depends_on: object, make: Callable[[], np.ndarray]) -> np.ndarray:
            key = self.key("quadbench.quad.quantize.calibration", graph, kind, depends_on)
            folder = self.store.folder(kind, {"key": key}, lambda folder: _save({kind: make()}, folder))
            return load_file(folder / _ARRAYS)[kind]

        return remember

    def pictures(self, task: PreparedTask, sources: Mapping[str, AdapterSource], foundation: Foundation) -> list[Image.Image]:
        """Return the reference image of each of a task's evaluation inputs. `sources` has the files of the task's adapters."""
        files = {name: (source.format, adapter_digests(source.path)) for name, source in sources.items()}
        dumped = task.task.model_dump(mode="json")
        key = self.key("quadbench.quad.reference", dumped, task.table, task.items.evaluation, files)

        def make(folder: Path) -> None:
            reference = reference_for(foundation, task.task, task.table, sources)
            for i, item in enumerate(task.items.evaluation):
                reference.render(item).save(folder / f"{i}.png")

        folder = self.store.folder("pictures", {"key": key}, make)
        return [_picture(folder / f"{i}.png") for i in range(len(task.items.evaluation))]


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def _save(arrays: Mapping[str, np.ndarray], folder: Path) -> None:
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, folder / _ARRAYS)


def content_digest(value: object) -> str:
    """Return the SHA-256 of a value's content: numbers, text, arrays, tensors, images, models, dataclasses and collections.

    Paths do not count: it does not matter where a file lies. An array that occurs several times is read once.
    """
    known: dict[int, tuple[np.ndarray, bytes]] = {}  # the arrays themselves too: an id is an object's own while it lives

    def digest(value: object) -> bytes:
        parts: list[Any]
        if isinstance(value, torch.Tensor):
            value = value.numpy()
        match value:
            case np.ndarray() if id(value) in known:
                return known[id(value)][1]
            case np.ndarray():
                parts = [str((value.dtype, value.shape)).encode(), np.ascontiguousarray(value).data]
            case Path():
                parts = [b"path"]
            case None | bool() | int() | float() | str():
                parts = [type(value).__name__.encode(), repr(value).encode()]
            case Image.Image():
                parts = [str((value.mode, value.size)).encode(), value.tobytes()]
            case BaseModel():
                parts = [value.model_dump_json().encode()]
            case Mapping():
                parts = [b"map", *(digest(item) for item in sorted(value.items()))]
            case tuple() | list():
                parts = [b"list", *map(digest, value)]
            case _ if is_dataclass(value):
                parts = [type(value).__name__.encode(), *(digest(getattr(value, f.name)) for f in fields(value))]
            case _:
                raise TypeError(f"a {type(value).__name__} has no digest")
        whole = hashlib.sha256()
        for part in parts:
            whole.update(hashlib.sha256(part).digest())
        if isinstance(value, np.ndarray):
            known[id(value)] = value, whole.digest()
        return whole.digest()

    return digest(value).hex()
