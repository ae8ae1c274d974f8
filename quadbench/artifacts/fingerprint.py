"""Fingerprint: a record or a bundle -> everything that may make its figures differ from another's; pure."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from quadbench.artifacts.bundle import Bundle, TaskAssets
from quadbench.artifacts.parts import lora_dtype
from quadbench.artifacts.run import LIBRARY_PREFIX, RunRecord

_VERSIONS = ("quadbench", "runtime", "harness", "harness.commit", "harness.build_type", "kit")
_CAP = re.compile(r"(\S+) [^/\s]+/(\S+) kHz")  # of a clock's text: `policy0 1000/2000/3000 kHz`
_NONE = "none"


def fingerprint(record: RunRecord) -> dict[str, str]:
    """Return the environment of a launch: the device's build, programs, libraries, settings, caps of the clocks, and images."""
    versions = {name: text for name, text in record.versions.items() if name in _VERSIONS or name.startswith(LIBRARY_PREFIX)}
    caps = ", ".join(" ".join(pair) for pair in _CAP.findall(record.state.get("before.clocks", "")))
    around = {
        "device build": record.device.fingerprint,
        "Android": record.device.android_release,
        "CPU": record.device.cpu,
        "target": record.target,
        "clocks up to, kHz": caps,
    }
    return {**{name: text for name, text in around.items() if text}, **versions, **record.settings, **_images(record)}


def _images(record: RunRecord) -> dict[str, str]:
    """Return how many images of each task a launch painted, and how many of them to warm up."""
    kinds = record.columns.kinds
    images = [kinds.each[place] for place in kinds.by_metric.get("end_to_end_ns", ())]
    counts = Counter((str(image.task), image.is_warmup) for image in images)
    return {
        f"{task}: images": f"{counts[task, False]} after {counts[task, True]}" for task in dict.fromkeys(t for t, _ in counts)
    }


def contents(bundle: Bundle, tasks: Sequence[TaskAssets]) -> dict[str, str]:
    """Return what a side computes: its bundle, with the precision, and of each task the sampler, the LoRA and the inputs."""
    held = {"bundle": bundle.digest[:12], "precision": bundle.precision, "LoRA inputs": lora_dtype(bundle)}
    for task in tasks:
        held |= {
            f"{task.name}: sampler": f"{task.scheme}, {task.steps} steps, guidance {task.guidance:g}",
            f"{task.name}: LoRA": ", ".join(f"{name} at {weight:g}" for name, weight in task.weights.items()) or _NONE,
            f"{task.name}: inputs": f"{len(task.items)}, {_digest_of_inputs(task)}",
        }
    return held


def differences(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> dict[str, tuple[str, str]]:
    """Return by name what is not the same around two sides' launches, each with every value that it had there."""
    return unlike([fingerprint(record) for record in a], [fingerprint(record) for record in b])


def unlike(a: Sequence[Mapping[str, str]], b: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, str]]:
    """Return by name what two sides do not have alike, each with every value that it has there."""
    names = dict.fromkeys(name for side in (a, b) for one in side for name in one)
    values = {name: (_values(a, name), _values(b, name)) for name in names}
    return {name: (", ".join(first), ", ".join(second)) for name, (first, second) in values.items() if first != second}


def _digest_of_inputs(task: TaskAssets) -> str:
    images = [[file and file.sha256 for file in (item.image, item.mask, item.blend)] for item in task.items]
    prompts = [(item.input_ids, item.negative_input_ids) for item in task.items]
    return hashlib.sha256(repr((images, prompts)).encode()).hexdigest()[:12]


def _values(side: Sequence[Mapping[str, str]], name: str) -> list[str]:
    return sorted({one.get(name, _NONE) for one in side})
