"""Options: a graph and a target -> the options of AI Hub's jobs, as text.

Their words are those of the service's own page, https://workbench.aihub.qualcomm.com/docs/hub/api.html.
"""

import re
from collections.abc import Iterator
from typing import assert_never

from quadbench.artifacts import Graph
from quadbench.target.targets import AiHubTarget


def compile_options(graph: Graph, target: AiHubTarget) -> str:
    """Return the options of a compile job. They name the graph and its outputs; the service would choose names of its own."""
    return " ".join(
        (
            f"--target_runtime {_compile_runtime(target)}",
            f"--output_names {','.join(output.name for output in graph.outputs)}",
            f"--qnn_options context_enable_graphs={graph_name(graph)}",
            *_version(target),
        )
    )


def link_options(target: AiHubTarget) -> str:
    """Return the options of a link job."""
    return " ".join(_version(target))


def profile_options(graph: Graph, target: AiHubTarget, *, iterations: int) -> str:
    """Return the options of a profile job. A linked model holds several graphs; this one is run."""
    graphs = (f"--qnn_options context_enable_graphs={graph_name(graph)}",) if target.runtime == "qnn_context_binary" else ()
    return " ".join((f"--max_profiler_iterations {iterations}", *graphs, *_version(target)))


def graph_name(graph: Graph) -> str:
    """Return a graph's name within its context: `unet`, or `unet_remove_object` where it serves one task."""
    words = [graph.component, *([graph.task] if graph.task else [])]
    return re.sub(r"\W", "_", "_".join(words))


def _compile_runtime(target: AiHubTarget) -> str:
    """Return the runtime to compile for. A context binary is linked from DLCs: the service no longer compiles to one directly."""
    match target.runtime:
        case "precompiled_qnn_onnx":
            return "precompiled_qnn_onnx"
        case "qnn_context_binary":
            return "qnn_dlc"
        case _:
            assert_never(target.runtime)


def _version(target: AiHubTarget) -> Iterator[str]:
    if target.qairt_version:
        yield f"--qairt_version {target.qairt_version}"
