"""Write a bundle's quantized ONNX graph as a .tflite file. Its UINT16 activations become LiteRT's symmetric INT16.

rounded_graph.py  conversion to symmetric INT16 encodings, integer operations read from QDQ, fused group norms
forms.py          ONNX operators written for LiteRT: elementwise, softmax, reshape, slice, resize, norms
linear.py         Conv, Gemm, MatMul and Gather for LiteRT, with constant or LoRA weights
flatbuffer.py     tensors, channels-last layouts, buffers and the signature in the .tflite file
"""

from pathlib import Path

from quadbench.compile.tflite.rounded_graph import fuse_group_norms, read_rounded_graph, reencode_for_litert
from quadbench.errors import BuildError, extra_hint, requires_package

INSTALL_HINT = extra_hint("litert")

__all__ = ["INSTALL_HINT", "reencode_for_litert", "write_tflite"]


def write_tflite(source: Path, path: Path) -> None:
    """Write an ONNX file's QDQ graph as the .tflite file `path`. Its inputs and outputs keep names, shapes and types."""
    with requires_package("writing graphs for LiteRT", hint=INSTALL_HINT):
        import ai_edge_litert.schema_py_generated  # noqa: F401  (checked before the graph is read)
        import onnx
    from quadbench.compile.tflite.flatbuffer import TfliteWriter
    from quadbench.compile.tflite.forms import FORMS

    graph = fuse_group_norms(read_rounded_graph(reencode_for_litert(onnx.load(source))))
    writer = TfliteWriter(graph)
    for op in graph.operations:
        if op.op_type not in FORMS:
            raise BuildError(f"{op} is not supported for LiteRT", hint="see docs/compilers.md for the supported operators")
        FORMS[op.op_type](writer, op)
    writer.write(path)
