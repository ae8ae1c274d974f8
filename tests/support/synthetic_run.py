"""Synthetic run: invented but deterministic numbers -> a RunResult with its images, for tests of what shows or stores runs."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path

from PIL import Image

from quadbench.artifacts import (
    Bundle,
    Caveat,
    Component,
    Deployment,
    DeviceFacts,
    FileRef,
    RunRecord,
    RunResult,
    Sample,
    Status,
    StoredArtifact,
    TaskAssets,
    TaskItem,
    Variant,
)
from quadbench.artifacts.bundle import BaseDigests, TaskKind
from quadbench.harness.event_log import EVENTS
from quadbench.recipe.tasks import NO_TASK
from quadbench.results.layout import Layout

MB = 2**20
STARTED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ADAPTERS = {"restyle": "restyle", "remove-object": "remove-object", "draw": None}
COMPONENT_BYTES = {Component.TEXT_ENCODER: 4 * MB, Component.VAE_ENCODER: 1 * MB, Component.VAE_DECODER: 2 * MB}
UNET_BYTES = {"base": 20 * MB, "restyle": 19 * MB, "remove-object": 19 * MB, "draw": 19 * MB}
ADAPTER_BYTES = {"restyle": 1 * MB, "remove-object": 2 * MB}
ABBA = (Variant.FLOAT, Variant.SHARED, Variant.PER_GRAPH, Variant.PER_GRAPH, Variant.SHARED)

S25 = DeviceFacts(
    address="virtual:s25",
    family="virtual",
    serial="127.0.0.1:5555",
    profile="s25",
    title="Galaxy S25",
    soc_model="SM8750",
    cpu="Example CPU, 2 cores",
    android_release="15",
    fingerprint="samsung/pa1qxx/pa1q:15/AP3A/1:user/release-keys",
)
TABS11 = replace(
    S25, address="virtual:tabs11", serial="127.0.0.1:5556", profile="tabs11", title="Galaxy Tab S11", soc_model="MT6991"
)


def make_run(
    folder: Path,
    *,
    devices: tuple[DeviceFacts, ...] = (S25,),
    variants: tuple[Variant, ...] = ABBA,
    items: int = 2,
    iterations: int = 10,
    with_truth: bool = True,
    change: Callable[[RunRecord], RunRecord] = lambda record: record,
) -> RunResult:
    """Return a run below `folder` (the results folder), its images written. `change` is applied to every record."""
    bundle_folder = folder / "bundles" / "b0"
    bundle = _bundle(bundle_folder, items, with_truth)
    records = [
        _record(folder, bundle, device, variant, launch, iterations)
        for device in devices
        for launch, variant in enumerate(variants)
    ]
    return RunResult(
        run_id="20260102-030405-quickstart",
        stored=StoredArtifact(artifact=bundle, folder=bundle_folder),
        records=tuple(change(record) for record in records),
        deployments=tuple(_deployment(device) for device in devices),
    )


def failed(record: RunRecord, reason: str) -> RunRecord:
    """Return the record of a launch that gave nothing."""
    return replace(record, status=Status.FAILED, reason=reason, samples=(), images={})


def _bundle(folder: Path, items: int, with_truth: bool) -> Bundle:
    kinds = {"restyle": TaskKind.IMAGE_TO_IMAGE, "remove-object": TaskKind.INPAINT, "draw": TaskKind.TEXT_TO_IMAGE}
    schemes = {"restyle": ("olss", 8, 3.0, 1.25e-4), "remove-object": ("lcm", 4, 1.0, None), "draw": ("olss", 8, 3.0, 2.5e-4)}
    tasks = []
    for name, kind in kinds.items():
        scheme, steps, guidance, fit_error = schemes[name]
        task_items = tuple(_item(folder, name, kind, index, with_truth) for index in range(items))
        tasks.append(
            TaskAssets(
                name=name,
                kind=kind,
                adapter=ADAPTERS[name],
                scheme=scheme,
                steps=steps,
                guidance=guidance,
                table=_file(f"tasks/{name}.json"),
                tensors=_file(f"tasks/{name}.safetensors"),
                items=task_items,
                fit_error=fit_error,
            )
        )
    return Bundle(
        digest="b0" * 32,
        recipe_name="quickstart",
        recipe_digest="c1" * 32,
        precision="w8a16",
        tool_versions={"torch": "2.9.0", "onnx": "1.19.1"},
        graphs=(),
        adapters=(),
        tasks=tuple(tasks),
        profile=_file("profile.json"),
        base=BaseDigests(graph="d2" * 32, profile="e3" * 32),
        build_seconds={"calibrate": 31.0, "export": 12.5, "fit samplers": 140.2},
    )


def _item(folder: Path, task: str, kind: TaskKind, index: int, with_truth: bool) -> TaskItem:
    name = f"{index:03d}"
    has_image = kind is not TaskKind.TEXT_TO_IMAGE
    return TaskItem(
        name=name,
        image=_png(folder, f"inputs/{task}/{name}.png", index) if has_image else None,
        mask=_png(folder, f"inputs/{task}/{name}.mask.png", 40) if kind is TaskKind.INPAINT else None,
        truth=_png(folder, f"truth/{task}/{name}.png", index + 5) if with_truth and kind is TaskKind.INPAINT else None,
        reference=_png(folder, f"reference/{task}/{name}.png", index + 9),
        prompt=f'a <red> & "round" face no. {index}',
        tokens={"input_ids": (1, 2)},
        negative_tokens={"input_ids": (1, 0)},
    )


def _png(folder: Path, path: str, seed: int) -> FileRef:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(_picture(seed))
    return _file(path)


@cache
def _picture(seed: int) -> bytes:
    image = Image.linear_gradient("L").resize((64, 64)).rotate(30 * seed)
    written = io.BytesIO()
    Image.merge("RGB", (image, image.rotate(90), image.point(lambda value: 255 - value))).save(written, "png")
    return written.getvalue()


def _file(path: str) -> FileRef:
    return FileRef(path=path, sha256="d2" * 32, size_bytes=100)


def _deployment(device: DeviceFacts) -> Deployment:
    objects = {f"{index:064x}": f"/data/local/tmp/quadbench/objects/{index:064x}" for index in range(12)}
    return Deployment(
        device=device,
        root="/data/local/tmp/quadbench",
        objects=objects,
        sent_bytes=87 * MB,
        present_bytes=3 * MB,
        seconds=2.4,
    )


def _record(folder: Path, bundle: Bundle, device: DeviceFacts, variant: Variant, launch: int, iterations: int) -> RunRecord:
    started_at = STARTED_AT + timedelta(minutes=launch)
    run_id = "20260102-030405-quickstart"
    layout = Layout(folder)
    own = layout.launch(run_id, device.address, variant, launch)
    images, events = {}, []
    for task in bundle.tasks:
        for item in task.items:
            path, seed = own / "images" / task.name / f"{item.name}.png", int(item.name) + 9
            _png(folder, layout.relative(path), seed)
            images[f"{task.name}/{item.name}"] = layout.relative(path)
            digest = sha256(_picture(seed)).hexdigest()
            announced = {"task": task.name, "item": item.name, "path": f"/data/{item.name}.png", "sha256": digest}
            events.append(json.dumps({"event": "image", **announced}))
    (own / EVENTS).write_text("\n".join(events))
    return RunRecord(
        record_id=f"{device.profile}-{launch}",
        run_id=run_id,
        started_at=started_at,
        ended_at=started_at + timedelta(seconds=21),
        recipe_name=bundle.recipe_name,
        recipe_digest=bundle.recipe_digest,
        bundle_digest=bundle.digest,
        compiled_digest="e3" * 32,
        target="onnxruntime",
        device=device,
        variant=variant,
        launch=launch,
        status=Status.OK,
        caveats=(Caveat.VIRTUAL_DEVICE,),
        versions={"harness": "0.1.0", "build_type": "Release", "runtime": "1.27.0"},
        state={"before.battery_percent": "100", "after.battery_percent": "100", "before.load": "0.3", "after.load": "1.9"},
        samples=_samples(bundle.tasks, variant, launch, iterations),
        images=images,
    )


_known: dict[str, tuple[Sample, ...]] = {}  # most tests ask for the same runs; tasks have dicts, so they are no keys


def _samples(tasks: tuple[TaskAssets, ...], variant: Variant, launch: int, iterations: int) -> tuple[Sample, ...]:
    key = repr((tasks, variant, launch, iterations))
    if key not in _known:
        _known[key] = _made_samples(tasks, variant, launch, iterations)
    return _known[key]


def _made_samples(tasks: tuple[TaskAssets, ...], variant: Variant, launch: int, iterations: int) -> tuple[Sample, ...]:
    dice = random.Random(launch)

    def about(value: float) -> float:
        return float(round(value * (1 + 0.02 * dice.random() + 0.01 * (launch % 3))))

    unets = [task.name for task in tasks] if variant.has_unet_per_task else ["base"]
    samples = [
        Sample(metric="session_load_ns", value=about(9e6), component=component, labels={}) for component in COMPONENT_BYTES
    ]
    samples += [Sample(metric="session_load_ns", value=about(41e6), component="unet", labels={"unet": unet}) for unet in unets]
    samples += _rom(variant, unets)
    before = NO_TASK
    for task in tasks:
        samples += [*_switch(task, variant, before, about), *_block(task, variant, iterations, about)]
        before = task.name
    for task in tasks:  # as `measure.switches` asks for: one image each in turn
        samples += [*_switch(task, variant, before, about), *_iteration(task, variant, 0, False, about)]
        before = task.name
    for task in tasks:
        samples += _quality(task, variant)
    return tuple(samples)


def _rom(variant: Variant, unets: list[str]) -> list[Sample]:
    def rom(value: int, component: str | None, **labels: str) -> Sample:
        return Sample(metric="rom_bytes", value=float(value), component=component, labels=labels)

    files = [rom(size, component, kind="base") for component, size in COMPONENT_BYTES.items()]
    files += [rom(UNET_BYTES[unet], "unet", kind="base", unet=unet) for unet in unets]
    if variant.has_unet_per_task:
        return files
    return files + [rom(size, None, kind="adapter", adapter=adapter) for adapter, size in ADAPTER_BYTES.items()]


def _switch(task: TaskAssets, variant: Variant, before: str, about: Callable[[float], float]) -> list[Sample]:
    own = variant.loads_at_switch
    labels = {"from": before, "to": task.name}
    samples = [
        Sample(metric="switch_ns", value=about(42e6 if own else 21e3), task=task.name, labels=labels),
        Sample(metric="load_peak_rss_bytes", value=about(190 * MB if own else 145 * MB), task=task.name),
        Sample(metric="first_unet_ns", value=about(31e6 if own else 27e6), task=task.name),
    ]
    if variant.has_unet_per_task or task.adapter is None:
        return samples
    state = {"adapter": task.adapter, "state": "resident" if before == list(ADAPTERS)[-1] else "cold"}
    return [*samples, Sample(metric="adapter_load_ns", value=about(1.2e6), task=task.name, labels=state)]


def _block(task: TaskAssets, variant: Variant, iterations: int, about: Callable[[float], float]) -> list[Sample]:
    peak = about({Variant.PER_GRAPH: 180, Variant.RESIDENT: 260}.get(variant, 150) * MB)
    samples = [sample for index in range(2) for sample in _iteration(task, variant, index, True, about)]
    samples += [sample for index in range(iterations) for sample in _iteration(task, variant, index, False, about)]
    return [*samples, Sample(metric="peak_rss_bytes", value=peak, task=task.name)]


def _iteration(
    task: TaskAssets, variant: Variant, iteration: int, is_warmup: bool, about: Callable[[float], float]
) -> list[Sample]:
    step_ns = 25e6 if variant.has_unet_per_task else 26e6
    slow = 3.0 if is_warmup else 1.0

    def sample(metric: str, value: float, component: str | None = None, step: int | None = None) -> Sample:
        return Sample(
            metric=metric,
            value=about(value * slow),
            task=task.name,
            component=component,
            iteration=iteration,
            step=step,
            is_warmup=is_warmup,
        )

    encoder = [] if task.kind is TaskKind.TEXT_TO_IMAGE else [sample("vae_encoder_ns", 14e6, "vae_encoder")]
    return [
        sample("text_encoder_ns", 3e6, "text_encoder"),
        *encoder,
        *(sample("unet_ns", step_ns, "unet", step) for step in range(task.steps)),
        sample("vae_decoder_ns", 33e6, "vae_decoder"),
        sample("end_to_end_ns", 38e6 + 14e6 * len(encoder) + task.steps * step_ns),
        sample("residual_ns", 2e6),
    ]


def _quality(task: TaskAssets, variant: Variant) -> list[Sample]:
    decibels = {Variant.FLOAT: 60.0, Variant.PER_GRAPH: 37.5}.get(variant.graph_variant, 38.0)
    worst = 1.0 if variant is Variant.FLOAT else 9.0
    samples = []
    for item in task.items:
        value, against = decibels + int(item.name), {"against": "reference"}
        samples.append(Sample(metric="psnr_db", value=value, task=task.name, item=item.name, labels=against))
        samples.append(Sample(metric="max_abs_difference", value=worst, task=task.name, item=item.name, labels=against))
        if item.truth:
            truth = {"against": "truth"}
            samples.append(Sample(metric="psnr_db", value=25.0, task=task.name, item=item.name, labels=truth))
    return samples
