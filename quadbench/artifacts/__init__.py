"""Artifacts: immutable data that one step of a benchmark writes and a later step reads, such as ONNX graphs.

bundle.py           bundles and compiled bundles: variants, graphs, adapters, tasks, accuracy, clipping
run_record.py       launches, devices, runs, scores; the files and graphs of a launch
launch_values.py    a launch's samples as columns; limits of plausible values
caveats.py          reasons to distrust a figure, with remedies
night_record.py     nightly cases, verdicts, waivers; a launch's environment and workload
kit.py              runtime kits: names, roles and origins of shared libraries
picture_metrics.py  titles, units and definitions of image metrics
pixels.py           untrusted image files as pixels, PSNR, inpainting masks
safe_text.py        checks of file names, paths, digests; control characters escaped
"""

from quadbench.artifacts.bundle import (
    LORA_PREFIX,
    MIB,
    SCHEMA_VERSION,
    Bundle,
    CompiledBundle,
    Component,
    FileRef,
    Graph,
    StoredArtifact,
    StoredBundle,
    StoredCompiled,
    TaskAssets,
    TaskItem,
    TensorSpec,
    Variant,
)
from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.launch_values import Sample, SampleKind
from quadbench.artifacts.run_record import Deployment, DeviceFacts, ErrorClass, LaunchPlan, Retry, RunRecord, RunResult, Status

__all__ = [
    "LORA_PREFIX",
    "MIB",
    "SCHEMA_VERSION",
    "Bundle",
    "Caveat",
    "CompiledBundle",
    "Component",
    "Deployment",
    "DeviceFacts",
    "ErrorClass",
    "FileRef",
    "Graph",
    "LaunchPlan",
    "Retry",
    "RunRecord",
    "RunResult",
    "Sample",
    "SampleKind",
    "Status",
    "StoredArtifact",
    "StoredBundle",
    "StoredCompiled",
    "TaskAssets",
    "TaskItem",
    "TensorSpec",
    "Variant",
]
