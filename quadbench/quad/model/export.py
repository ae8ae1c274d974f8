"""Export: a torch module and example arguments -> a float ONNX graph with the names of docs/formats.md."""

import logging
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from quadbench.lint.rules import NATIVE_16_BIT_OPSET
from quadbench.quad.model.initializers import INLINE_LIMIT_BYTES, save_outside

log = logging.getLogger(__name__)


def export_graph(
    module: nn.Module, arguments: Sequence[object], *, input_names: Sequence[str], output_name: str, scratch: Path
) -> onnx.ModelProto:
    """Trace the module with static shapes and return its graph. Lists among the arguments count as inputs one by one.

    Weights of more than INLINE_LIMIT_BYTES go to a file below `scratch`, which has to outlive the graph.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        program = torch.onnx.export(
            module.eval(), tuple(arguments), dynamo=True, opset_version=NATIVE_16_BIT_OPSET, optimize=False, verbose=False
        )
        assert program is not None
        traced = list(program.model.graph.initializers.values())
        program.optimize()
    is_large = sum(tensor.nbytes for tensor in module.state_dict().values()) > INLINE_LIMIT_BYTES
    model = save_outside(program, scratch) if is_large else program.model_proto
    _forget([*traced, *program.model.graph.initializers.values()])
    _rename(model, input_names, output_name)
    _strip(model)
    if not is_large:
        onnx.checker.check_model(model)
    return model


def _forget(values: Iterable[Any]) -> None:
    """Drop the weights, which would stay: the exporter's optimizer keeps the last graph that it saw in its global patterns."""
    for value in values:
        value.const_value = None


def _rename(model: onnx.ModelProto, input_names: Sequence[str], output_name: str) -> None:
    """Give the graph's inputs and its output these names, wherever they stand."""
    graph = model.graph
    old_inputs = [value.name for value in graph.input]
    names = dict(zip(old_inputs, input_names, strict=True)) | {graph.output[0].name: output_name}
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for names_of_node in (node.input, node.output):
            for i, name in enumerate(names_of_node):
                names_of_node[i] = names.get(name, name)


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes, whose stack traces would make equal graphs differ, and number the nodes."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if part.HasField("doc_string"):
            part.ClearField("doc_string")
        del part.metadata_props[:]
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{i}"
