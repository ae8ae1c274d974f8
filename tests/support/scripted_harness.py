"""A bundle written by hand, and harnesses that are Python scripts but read the real plan and speak its protocol."""

import hashlib
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from quadbench.artifacts import (
    Bundle,
    CompiledBundle,
    Component,
    Deployment,
    FileRef,
    Graph,
    LaunchPlan,
    RunRecord,
    Sample,
    StoredArtifact,
    TaskAssets,
    TaskItem,
    Variant,
)
from quadbench.artifacts.bundle import AdapterFile, BaseDigests, TaskKind
from quadbench.artifacts.run_record import SequenceBlock
from quadbench.devices.device import Device
from quadbench.harness.installation import ExecutionProvider, Installation
from quadbench.measure.launch import measure_launch
from quadbench.measure.launch_record import LaunchSettings
from quadbench.recipe import Runtime
from quadbench.recipe.settings import Gate
from quadbench.results.layout import Layout

TASKS = {"restyle": TaskKind.IMAGE_TO_IMAGE, "remove-object": TaskKind.INPAINT}
ITEMS = ("000", "001")
MASK: NDArray[np.uint8] = np.pad(np.full((1, 1), 255, np.uint8), (0, 7))  # of the pixel that `change` changes alone
STEPS = 4
SAMPLES = 244  # of a good launch of the plan that `launch_of` gives
LIBRARIES = 1  # that such a launch tells of
GOOD = "header()\nrun()\npaint_all()\nfooter()\n"

# What every script begins with. Its times are short enough for a launch on any machine. `paint` writes an item's reference with
# `change` added to one pixel, or all with `everywhere`. As most scripts change nothing, only those that do load Pillow.
_PRELUDE = """#!{python}
import time
began = time.monotonic_ns()
import hashlib, json, os, pathlib, signal, sys

text = pathlib.Path(sys.argv[1]).read_bytes()
plan = json.loads(text)
references = pathlib.Path({references!r})

def emit(event, **words):
    print(json.dumps({{"event": event, **words}}), flush=True)

count = 0
def sample(metric="end_to_end_ns", value=50_000, **words):
    global count
    count += 1
    first = plan["sequence"][0]
    emit("sample", metric=metric, value=value,
         **(words or {{"task": first["task"], "iteration": 0, "is_warmup": first["warmup"] > 0}}))

def header(build_type="Release", plan_sha256=hashlib.sha256(text).hexdigest(), peak_reset=True):
    emit("header", schema_version=1, harness_version="0.1.0", build_type=build_type, commit="abc", runtime_version="1.27.0",
         plan_sha256=plan_sha256, variant=plan["variant"], cpu="x86_64", started_at="2025-03-30T00:00:00Z", peak_reset=peak_reset)

def paint(task, item, change=0, everywhere=0, size=None, sha256=None):
    reference = references / task / (item + ".png")
    path = pathlib.Path(plan["images"]) / task / (item + ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(reference.read_bytes())
    if change or everywhere or size:
        sys.path.append({packages!r})
        from PIL import Image

        picture = Image.open(path).convert("RGB").point(lambda level: level + everywhere)
        red, green, blue = picture.getpixel((0, 0))
        picture.putpixel((0, 0), (red + change, green, blue))
        picture.resize(size or (8, 8)).save(path)
    announce(task, item, sha256 or hashlib.sha256(path.read_bytes()).hexdigest())

def announce(task, item, sha256="0" * 64, path=None):
    emit("image", task=task, item=item, path=path or plan["images"] + "/" + task + "/" + item + ".png", sha256=sha256)

def paint_all(changes={{}}, **words):
    for task, assets in plan["tasks"].items():
        for item in assets["items"]:
            name = item["name"]
            paint(task, name, **(words | changes.get(task + "/" + name, {{}})))

is_merged = plan["variant"] == "per-graph"

def load():
    for component in (*plan["components"]["encoders"], *(plan["components"].keys() - {{"encoders"}})):
        sample("session_load_ns", 90_000, component=component)
    if not is_merged:
        sample("session_load_ns", 90_000, component="unet", labels={{"unet": "base"}})
    sample("load_peak_rss_bytes", 50_000_000, is_warmup=False)
    opened()

def tell(*paths):
    for path in paths:
        emit("library", path=path, build_id=None)

def opened():
    provider = plan["runtime"].get("execution_provider", {{}})
    tell(*filter(None, (plan["runtime"]["library"], provider.get("library"), provider.get("options", {{}}).get("backend_path"))))

def enter(task, before):
    if is_merged:
        sample("session_load_ns", 90_000, task=task, component="unet", labels={{"unet": task}})
    elif plan["tasks"][task]["adapter"]:
        sample("adapter_load_ns", 200, task=task, labels={{"adapter": plan["tasks"][task]["adapter"], "state": "cold"}})
    sample("switch_ns", 210, task=task, labels={{"from": before, "to": task}})
    sample("load_peak_rss_bytes", 60_000_000, task=task)

def image(task, iteration, is_warmup, is_first=False, steps={steps}):
    items = plan["tasks"][task]["items"]
    words = {{"task": task, "iteration": iteration, "item": items[iteration % len(items)]["name"], "is_warmup": is_warmup}}
    if is_first:
        sample("first_unet_ns", 6_000, task=task, component="unet", item=words["item"])
    sample("text_encoder_ns", 3_000, component="text_encoder", **words)
    sample("vae_encoder_ns", 4_000, component="vae_encoder", **words)
    for step in range(steps):
        sample("unet_ns", 5_000, component="unet", step=step, labels={{"runs": "2"}}, **words)
    sample("vae_decoder_ns", 7_000, component="vae_decoder", **words)
    sample("end_to_end_ns", 50_000, **words)
    sample("residual_ns", 36_000 - 5_000 * steps, **words)

def run(skip=lambda task, iteration, is_warmup: False):
    load()
    before = "none"
    for block in plan["sequence"]:
        is_first = block["task"] != before
        if is_first:
            enter(block["task"], before)
        before = block["task"]
        for is_warmup, length in ((True, block["warmup"]), (False, block["iterations"])):
            for i in range(length):
                if not skip(before, i, is_warmup):
                    image(before, i, is_warmup, is_first)
                    is_first = False
        sample("peak_rss_bytes", 70_000_000, task=before)
        for region in ("anonymous", "dma_buf", "graphs", "libraries", "other"):
            sample("rss_" + region + "_bytes", 10_000_000, task=before)
        sample("adapter_cache_bytes", 2_000_000, task=before)
    sample("memory_sampling_ns", 2_000, is_warmup=False)

def footer(status="OK", samples=None, wall_ns=None):
    emit("footer", status=status, samples=count if samples is None else samples,
         wall_ns=time.monotonic_ns() - began if wall_ns is None else wall_ns)

"""


def launch_of(variant: Variant = Variant.SHARED, iterations: int = 11, tasks: tuple[str, ...] = tuple(TASKS)) -> LaunchPlan:
    blocks = tuple(SequenceBlock(task=task, warmup=1, iterations=iterations) for task in tasks)
    return LaunchPlan(variant=variant, launch=0, sequence=blocks)


def measured(
    world: "World",
    script: str,
    launch: LaunchPlan | None = None,
    *,
    device: Device | None = None,
    harness_mode: str = "755",
    run_id: str = "run-1",
    timeout_s: float = 60.0,
    limits: Gate | None = None,
    execution_provider: ExecutionProvider | None = None,
) -> RunRecord:
    """The record of one launch of the script."""
    harness = world.harness(script, mode=harness_mode)
    installation = world.installation(harness, device=device, execution_provider=execution_provider)
    settings = LaunchSettings(run_id=run_id, layout=world.layout, runtime=Runtime(), timeout_s=timeout_s, gate=limits or Gate())
    return measure_launch(installation, launch or launch_of(), settings)


def files_of(world: "World") -> Path:
    """Where the first shared launch of the run left its files."""
    return world.layout.launch("run-1", "local", Variant.SHARED, 0)


def of_metric(record: RunRecord, metric: str) -> list[Sample]:
    return [sample for sample in record.samples if sample.metric == metric]


class World:
    """A bundle in a folder, compiled by copying, deployed to a device together with a scripted harness."""

    def __init__(self, folder: Path, device: Device) -> None:
        self.folder, self.device, self.objects = folder, device, dict[str, str]()
        self.graphs = tuple(self._graphs())
        self.adapters = tuple(self._adapters())
        self.bundle = Bundle(
            digest="b0" * 32,
            recipe_name="quickstart",
            recipe_digest="recipe-digest",
            precision="w8a16",
            tool_versions={"torch": "2.9"},
            graphs=self.graphs,
            adapters=self.adapters,
            tasks=tuple(self._task(name, kind) for name, kind in TASKS.items()),
            profile=self._file("profile.json", b"{}"),
            base=BaseDigests(graph="1" * 64, profile="2" * 64),
        )
        self.compiled = CompiledBundle(
            digest="c0" * 32,
            parent_digest="b0" * 32,
            target="onnxruntime",
            tool_versions={"onnxruntime": "1.27"},
            graphs=tuple(graph for graph in self.graphs if graph.variant is not Variant.FLOAT),
        )
        self.runtime = self._file("libonnxruntime.so", b"runtime").sha256

    @property
    def deployment(self) -> Deployment:
        return Deployment(
            device=self.device.facts,
            root=self.device.root,
            objects=dict(self.objects),
            sent_bytes=0,
            present_bytes=0,
            seconds=0.0,
        )

    @property
    def layout(self) -> Layout:
        return Layout(self.folder.parent / "results")

    def installation(
        self, program: str, *, device: Device | None = None, execution_provider: ExecutionProvider | None = None
    ) -> Installation:
        """The bundle on the device, with a program by its sha256 as the harness."""
        return Installation(
            device=device or self.device,
            bundle=StoredArtifact(artifact=self.bundle, folder=self.folder),
            compiled=StoredArtifact(artifact=self.compiled, folder=self.folder),
            deployment=self.deployment,
            program=program,
            runtime=self.runtime,
            execution_provider=execution_provider,
        )

    def harness(self, script: str, *, mode: str = "755") -> str:
        """Deploy a script as the harness and give its sha256."""
        python = f"{sys.executable} -IS" if self.device.family == "local" else "/usr/bin/python3"
        packages, references = sysconfig.get_path("purelib"), str(self.folder / "reference")
        prelude = _PRELUDE.format(python=python, packages=packages, steps=STEPS, references=references)
        file = self._file("harness", (prelude + script).encode())
        self.device.shell(["chmod", mode, self.objects[file.sha256]], 10)
        return file.sha256

    def _graphs(self) -> list[Graph]:
        of_variant = [(v, c, None) for v in (Variant.SHARED, Variant.FLOAT) for c in Component]
        graphs = [*of_variant, *((Variant.PER_GRAPH, Component.UNET, task) for task in TASKS)]
        found = [self._graph(*words, size_bytes=1000 + 100 * place) for place, words in enumerate(graphs)]
        (base, other), context = found[-2:], self._file("context-shared/context", b"c" * 5000)
        patched = replace(other, variant=Variant.PATCHED, file=base.file, patch=self._file("patched/patch", b"p" * 70))
        shared = [replace(own, variant=Variant.CONTEXT_SHARED, data=context) for own in (base, other)]
        return [*found, replace(base, variant=Variant.PATCHED), patched, *shared]

    def _graph(self, variant: Variant, component: Component, task: str | None, size_bytes: int) -> Graph:
        path = "/".join(filter(None, (variant, task, f"{component}.onnx")))
        file = self._file(path, f"{variant}{component}{task}".ljust(size_bytes).encode())
        return Graph(variant=variant, component=component, task=task, file=file, inputs=(), outputs=())

    def _adapters(self) -> list[AdapterFile]:
        return [
            AdapterFile(name=task, variant=v, file=self._file(f"{v}/{task}.safetensors", f"{v}{task}".encode()), rank=4, sites=2)
            for task in TASKS
            for v in (Variant.SHARED, Variant.FLOAT)
        ]

    def _task(self, name: str, kind: TaskKind) -> TaskAssets:
        return TaskAssets(
            name=name,
            kind=kind,
            adapter=name,
            scheme="lcm",
            steps=STEPS,
            guidance=2.0,
            table=self._file(f"{name}.json", f"table {name}".encode()),
            tensors=self._file(f"{name}.safetensors", f"tensors {name}".encode()),
            items=tuple(self._item(name, item, has_mask=kind is TaskKind.INPAINT) for item in ITEMS),
        )

    def _item(self, task: str, item: str, *, has_mask: bool) -> TaskItem:
        return TaskItem(
            name=item,
            image=self._file(f"inputs/{task}/{item}.png", f"input {task} {item}".encode()),
            mask=self._png(f"inputs/{task}/{item}.mask.png", MASK) if has_mask else None,
            blend=self._file(f"inputs/{task}/{item}.blend.png", f"blend {task} {item}".encode()) if has_mask else None,
            truth=self._picture(f"truth/{task}/{item}.png", 60) if has_mask else None,
            reference=self._picture(f"reference/{task}/{item}.png", 64),
            prompt="a cat",
            tokens={"input_ids": (1, 2)},
            negative_tokens={"input_ids": (1, 0)},
        )

    def _picture(self, path: str, level: int) -> FileRef:
        return self._png(path, np.full((8, 8, 3), level, np.uint8))

    def _png(self, path: str, pixels: NDArray[np.uint8]) -> FileRef:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
        return self._file(path, place.read_bytes())

    def _file(self, path: str, content: bytes) -> FileRef:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        self.objects[sha256] = f"{self.device.root}/objects/{sha256}"
        self.device.push({self.objects[sha256]: place})
        return FileRef(path=path, sha256=sha256, size_bytes=len(content))
