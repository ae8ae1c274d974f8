"""Artifacts: the nouns that pass between stages.

Recipe --quad--> Bundle --compile--> CompiledBundle --deploy--> Deployment --measure--> RunRecord --report--> HTML, tables

They are frozen data. A Bundle and a CompiledBundle are folders, whose `manifest.json` is the same data as JSON.
"""

from quadbench.artifacts.bundle import (
    LORA_PREFIX,
    MIB,
    SCHEMA_VERSION,
    AdapterFile,
    BaseDigests,
    Bundle,
    CompileCost,
    CompiledBundle,
    Component,
    FileRef,
    Graph,
    Int8Share,
    Kernels,
    Share,
    Stored,
    TaskAssets,
    TaskItem,
    TaskKind,
    TensorSpec,
    Variant,
)
from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.launch_values import Kinds, Sample, SampleKind, Samples
from quadbench.artifacts.run_record import (
    HOSTED_FAMILY,
    LIBRARY_PREFIX,
    Deployment,
    DeviceFacts,
    ErrorClass,
    LaunchPlan,
    Retry,
    RunRecord,
    RunResult,
    SequenceBlock,
    Status,
)

__all__ = [
    "HOSTED_FAMILY",
    "LIBRARY_PREFIX",
    "LORA_PREFIX",
    "MIB",
    "SCHEMA_VERSION",
    "AdapterFile",
    "BaseDigests",
    "Bundle",
    "Caveat",
    "CompileCost",
    "CompiledBundle",
    "Component",
    "Deployment",
    "DeviceFacts",
    "ErrorClass",
    "FileRef",
    "Graph",
    "Int8Share",
    "Kernels",
    "Kinds",
    "LaunchPlan",
    "Retry",
    "RunRecord",
    "RunResult",
    "Sample",
    "SampleKind",
    "Samples",
    "SequenceBlock",
    "Share",
    "Status",
    "Stored",
    "TaskAssets",
    "TaskItem",
    "TaskKind",
    "TensorSpec",
    "Variant",
]
