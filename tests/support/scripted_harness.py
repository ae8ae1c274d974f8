"""A bundle written by hand, and harnesses that are Python scripts but read the real plan and speak its protocol."""

import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from quadbench.artifacts import (
    AdapterFile,
    BaseDigests,
    Bundle,
    CompiledBundle,
    Component,
    Deployment,
    FileRef,
    Graph,
    LaunchPlan,
    RunRecord,
    Sample,
    SequenceBlock,
    Stored,
    TaskAssets,
    TaskItem,
    TaskKind,
    Variant,
)
from quadbench.devices.device import Device
from quadbench.harness.execution_provider import ExecutionProvider
from quadbench.harness.installation import Installation
from quadbench.measure import GateLimits, LaunchSettings, measure_launch
from quadbench.results.layout import Layout

TASKS = {"restyle": TaskKind.IMAGE_TO_IMAGE, "remove-object": TaskKind.INPAINT}
ITEMS = ("000", "001")
GOOD = "header()\nrun()\npaint_all()\nfooter()\n"

# What every script begins with. `paint` writes an item's reference with `change` added to one pixel, or all with `everywhere`.
_PRELUDE = """#!{python}
import hashlib, json, os, pathlib, signal, sys, time
import numpy as np
from PIL import Image

text = pathlib.Path(sys.argv[1]).read_bytes()
plan = json.loads(text)
references = pathlib.Path({references!r})

def emit(event, **words):
    print(json.dumps({{"event": event, **words}}), flush=True)

count = 0
def sample(metric="end_to_end_ns", value=5_000_000, **words):
    global count
    count += 1
    emit("sample", metric=metric, value=value, **words)

def header(build_type="Release", plan_sha256=hashlib.sha256(text).hexdigest()):
    emit("header", schema_version=1, harness_version="0.1.0", build_type=build_type, commit="abc", runtime_version="1.27.0",
         plan_sha256=plan_sha256, variant=plan["variant"], cpu="x86_64", started_at="2025-03-30T00:00:00Z", peak_reset=True)

def paint(task, item, change=0, everywhere=0, size=None):
    image = np.asarray(Image.open(references / task / (item + ".png")).convert("RGB")).astype(int) + everywhere
    image[0, 0, 0] += change
    path = pathlib.Path(plan["images"]) / task / (item + ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype("uint8")).resize(size or (8, 8)).save(path)
    emit("image", task=task, item=item, path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())

def paint_all(**words):
    for task, assets in plan["tasks"].items():
        for item in assets["items"]:
            paint(task, item["name"], **words)

def run():
    for block in plan["sequence"]:
        for i in range(block["warmup"] + block["iterations"]):
            sample(task=block["task"], iteration=i, is_warmup=i < block["warmup"])

def footer(status="OK", samples=None):
    emit("footer", status=status, samples=count if samples is None else samples, wall_ns=1)

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
    limits: GateLimits | None = None,
    execution_provider: ExecutionProvider | None = None,
) -> RunRecord:
    """The record of one launch of the script."""
    harness = world.harness(script, mode=harness_mode)
    installation = world.installation(harness, device=device, execution_provider=execution_provider)
    settings = LaunchSettings(run_id=run_id, layout=world.layout, threads=2, timeout_s=timeout_s, limits=limits or GateLimits())
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
            digest="bundle-digest",
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
            digest="compiled-digest",
            parent_digest="bundle-digest",
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
            bundle=Stored(artifact=self.bundle, folder=self.folder),
            compiled=Stored(artifact=self.compiled, folder=self.folder),
            deployment=self.deployment,
            program=program,
            runtime=self.runtime,
            execution_provider=execution_provider,
        )

    def harness(self, script: str, *, mode: str = "755") -> str:
        """Deploy a script as the harness and give its sha256."""
        prelude = _PRELUDE.format(python=sys.executable, references=str(self.folder / "reference"))
        file = self._file("harness", (prelude + script).encode())
        self.device.shell(["chmod", mode, self.objects[file.sha256]], 10)
        return file.sha256

    def _graphs(self) -> list[Graph]:
        of_variant = [(v, c, None) for v in (Variant.SHARED, Variant.FLOAT) for c in Component]
        graphs = [*of_variant, *((Variant.PER_GRAPH, Component.UNET, task) for task in TASKS)]
        return [self._graph(*words, size_bytes=1000 + 100 * place) for place, words in enumerate(graphs)]

    def _graph(self, variant: Variant, component: Component, task: str | None, size_bytes: int) -> Graph:
        file = self._file(f"{variant}/{task or ''}/{component}.onnx", f"{variant}{component}{task}".ljust(size_bytes).encode())
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
            steps=4,
            guidance=2.0,
            table=self._file(f"{name}.json", f"table {name}".encode()),
            tensors=self._file(f"{name}.safetensors", f"tensors {name}".encode()),
            items=tuple(self._item(name, item, has_mask=kind is TaskKind.INPAINT) for item in ITEMS),
        )

    def _item(self, task: str, item: str, *, has_mask: bool) -> TaskItem:
        return TaskItem(
            name=item,
            image=self._file(f"inputs/{task}/{item}.png", f"input {task} {item}".encode()),
            mask=self._file(f"inputs/{task}/{item}-mask.png", f"mask {task} {item}".encode()) if has_mask else None,
            truth=self._picture(f"truth/{task}/{item}.png", 60) if has_mask else None,
            reference=self._picture(f"reference/{task}/{item}.png", 64),
            prompt="a cat",
            input_ids=(1, 2),
            negative_input_ids=(1, 0),
        )

    def _picture(self, path: str, level: int) -> FileRef:
        pixels: NDArray[np.uint8] = np.full((8, 8, 3), level, dtype=np.uint8)
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
        self.device.push(place, self.objects[sha256])
        return FileRef(path=path, sha256=sha256, size_bytes=len(content))
