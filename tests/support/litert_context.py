"""LiteRT context: a .tflite file that LiteRT has compiled for a Qualcomm chip -> an ONNX file that the HTP's emulator runs."""

import re
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from onnx import ModelProto, helper, save

from quadbench.compile.single_file import CONTEXT_OP


def context_of(path: Path) -> tuple[str, bytes]:
    """Return the name and the bytes of the context in the file's only operator."""
    data = path.read_bytes()
    graph = schema.Model.GetRootAs(data).Subgraphs(0)
    options = flexbuffers.Loads(graph.Operators(0).CustomOptionsAsNumpy().tobytes())
    start = options["bytecode_offset"]
    return options["name"], data[start : start + options["bytecode_size"]]


def name_in_context(name: str) -> str:
    """Return the name that Qualcomm's compiler gives to an input or output; ONNX Runtime guesses where names differ."""
    return re.sub(r"\W", "_", name)


def write_for_emulator(source: ModelProto, compiled: Path, path: Path) -> None:
    """Write an ONNX file of one node, with the inputs and outputs of the graph that was compiled, by the context's names."""
    name, context = context_of(compiled)
    source = ModelProto.FromString(source.SerializeToString())
    for value in (*source.graph.input, *source.graph.output):
        value.name = name_in_context(value.name)
    inputs, outputs = ([value.name for value in values] for values in (source.graph.input, source.graph.output))
    attributes = {"embed_mode": 1, "main_context": 1, "ep_cache_context": context, "partition_name": name, "source": "QNN"}
    node = helper.make_node(CONTEXT_OP, inputs, outputs, name, domain="com.microsoft", **attributes)
    graph = helper.make_graph([node], "context", list(source.graph.input), list(source.graph.output))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
