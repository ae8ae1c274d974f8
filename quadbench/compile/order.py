"""Order: a graph -> the same with what needs no activation first in its file, so that a run makes it late and drops it soon.

ONNX Runtime runs a graph depth first from its outputs, and begins with the input of a node whose maker stands last in the file.
Where a weight's DequantizeLinear stands behind what makes the activation, it runs before it, and so on to the first layer: all
such weights are in memory as floats before anything is computed (docs/measured/runtime.md).
"""

from pathlib import Path

from quadbench.artifacts import LORA_PREFIX
from quadbench.compile.rewriting import names_read
from quadbench.errors import package_needed


def defer_weights(path: Path) -> None:
    """Rewrite the file of a graph whose weights or LoRAs are made ready by nodes; leave any other as it is.

    Raises:
        MissingDependencyError: the package onnx is not installed.
    """
    with package_needed("compiling graphs", hint="pip install onnx"):
        import onnx
    model = onnx.load(path, load_external_data=False)
    loras = [value.name for value in model.graph.input if value.name.startswith(LORA_PREFIX)]
    ready = {"", *(constant.name for constant in model.graph.initializer), *loras}
    first, others = [], []
    for node in model.graph.node:
        if ready.issuperset(names_read(node)):
            first.append(node)
            ready.update(node.output)
        else:
            others.append(node)
    if first == list(model.graph.node)[: len(first)]:
        return
    nodes = [*first, *others]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
