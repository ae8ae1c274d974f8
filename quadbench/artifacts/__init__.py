"""Artifacts: the immutable data that the stages of a benchmark pass to each other, from bundles to launch records.

Recipe --quad--> Bundle --compile--> CompiledBundle --deploy--> Deployment --measure--> RunRecord --report--> HTML, tables

A Bundle and a CompiledBundle are folders, whose `manifest.json` is the same data as JSON.
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
