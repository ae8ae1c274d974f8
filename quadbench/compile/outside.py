"""Outside: a graph with weights in a file beside it, and what was made of it -> the latter, those weights in that file again."""

from pathlib import Path

from quadbench.errors import BuildError, package_needed


def keep_outside(source: Path, path: Path) -> None:
    """Rewrite the graph at `path` to refer to the file beside it for the weights that the one at `source` has there.

    Raises:
        BuildError: one of them is gone.
        MissingDependencyError: the package onnx is not installed.
    """
    with package_needed("compiling graphs with weights in a file beside them", hint="pip install onnx"):
        import onnx
    before = onnx.load(source, load_external_data=False).graph.initializer
    outside = {constant.name: constant for constant in before if constant.data_location == onnx.TensorProto.EXTERNAL}
    model = onnx.load(path, load_external_data=False)
    for constant in model.graph.initializer:
        if constant.name in outside:
            constant.CopyFrom(outside.pop(constant.name))
    if outside:
        raise BuildError(
            f"ONNX Runtime's optimizer has replaced weights of '{source.name}' to which adapters are added: {', '.join(outside)}",
            hint="take merged-at-load out of the recipe's baselines, or use another version of onnxruntime",
        )
    onnx.save(model, path)
