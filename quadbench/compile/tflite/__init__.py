"""TFLite: writing a bundle's quantized ONNX graph as a .tflite file, with encodings converted to LiteRT's INT16 scheme."""

from pathlib import Path

from quadbench.compile.tflite.rounded_graph import fuse_group_norms, read_rounded_graph, reencode_for_litert
from quadbench.errors import BuildError, requires_package

INSTALL_HINT = "pip install 'quadbench[litert]'"

__all__ = ["INSTALL_HINT", "reencode_for_litert", "write_tflite"]


def write_tflite(source: Path, path: Path) -> None:
    """Write the .tflite file of a bundle's QDQ graph. Inputs and outputs keep their names, shapes and types."""
    with requires_package("writing graphs for LiteRT", hint=INSTALL_HINT):
        import ai_edge_litert.schema_py_generated  # noqa: F401  (checked before the graph is read)
        import onnx
    from quadbench.compile.tflite.flatbuffer import TfliteWriter
    from quadbench.compile.tflite.forms import FORMS

    graph = fuse_group_norms(read_rounded_graph(reencode_for_litert(onnx.load(source))))
    writer = TfliteWriter(graph)
    for op in graph.operations:
        if op.op_type not in FORMS:
            raise BuildError(f"{op} has no form in LiteRT here", hint="docs/litert.md lists the operators that have one")
        FORMS[op.op_type](writer, op)
    writer.write(path)
