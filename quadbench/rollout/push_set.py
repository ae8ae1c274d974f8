"""Push set: a harness, its libraries, compiled graphs and a bundle -> the files that a device takes, by what they are."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from quadbench.artifacts import Bundle, CompiledBundle, FileRef, Stored
from quadbench.artifacts.kit import Kit
from quadbench.artifacts.parts import file_refs, harness_files
from quadbench.deploy import LocalFile
from quadbench.results.digests import sha256_of

HARNESS, RUNTIME, BASE, PER_GRAPH = "harness", "runtime", "base", "per-graph"
FLOAT, ADAPTERS, INPUTS = "float", "adapters", "tables and inputs"


def push_set(
    harness: Sequence[LocalFile],
    libraries: Sequence[LocalFile],
    graphs: Stored[CompiledBundle] | Stored[Bundle],
    bundle: Stored[Bundle],
    *,
    runs_float: bool = True,
) -> dict[str, list[LocalFile]]:
    """Return the files that launches of all variants need. A file that is two things is among both; a device takes it once.

    `graphs` has the quantized graphs; unless the float graph shall run there, what it takes, adapters in float among it, is not
    sent.
    """
    content = bundle.artifact
    quantized = [graph for graph in graphs.artifact.graphs if graph.variant.is_quantized]
    opened = list(harness_files(content, runs_float=runs_float))
    floats, adapters = set(file_refs(content.graphs)), set(file_refs(content.adapters))
    return {
        HARNESS: list(harness),
        RUNTIME: list(libraries),
        BASE: local_files(graphs, file_refs(tuple(graph for graph in quantized if graph.task is None))),
        PER_GRAPH: local_files(graphs, file_refs(tuple(graph for graph in quantized if graph.task is not None))),
        FLOAT: local_files(bundle, (file for file in opened if file in floats)),
        ADAPTERS: local_files(bundle, (file for file in opened if file in adapters)),
        INPUTS: local_files(bundle, (file for file in opened if file not in floats | adapters)),
    }


def local_files(artifact: Stored[Bundle] | Stored[CompiledBundle] | Stored[Kit], files: Iterable[FileRef]) -> list[LocalFile]:
    """Return files of an artifact as they are deployed."""
    return [LocalFile(path=artifact.path(file), sha256=file.sha256, size_bytes=file.size_bytes) for file in files]


def local_file(path: Path, *, executable: bool = False) -> LocalFile:
    """Return a file of this machine as it is deployed."""
    return LocalFile(path=path, sha256=sha256_of(path), size_bytes=path.stat().st_size, executable=executable)
