"""Merge a compiled ONNX model from AI Hub into a single file. AI Hub delivers a zip file with a separate context binary.

Devices name files by their digests, so a model would not find a separate context file.
"""

import zipfile
from pathlib import Path
from typing import Any

from quadbench.artifacts import Graph
from quadbench.errors import BuildError, extra_hint, requires_package
from quadbench.kits.archives import ZIP_FAULTS

CONTEXT_OP = "EPContext"  # ONNX Runtime's operator for a part compiled by an execution provider
_MAX_MEMBERS, _MAX_BYTES = 100, 16 * 2**30  # of an archive; a larger model does not fit a phone
_BOUNDARY_OPS = {CONTEXT_OP, "QuantizeLinear", "DequantizeLinear"}


def single_file(download: Path, path: Path, graph: Graph) -> None:
    """Write AI Hub's compiled model to `path` as one ONNX file with its context binaries. `download` is an ONNX or zip file."""
    onnx, file = _onnx(), download
    if download.suffix == ".zip":
        folder = download.parent / "unpacked"
        try:
            with zipfile.ZipFile(download) as archive:
                members = archive.infolist()
                size = sum(member.file_size for member in members)
                if len(members) > _MAX_MEMBERS or size > _MAX_BYTES:
                    raise ValueError(f"{len(members)} files of {size} bytes; expected at most {_MAX_MEMBERS} of {_MAX_BYTES}")
                archive.extractall(folder)
        except (*ZIP_FAULTS, OSError) as error:
            raise BuildError(
                f"the compiled model of '{graph.file.path}' arrived damaged: {error}", hint="run again to download it again"
            ) from error
        models = [model for model in folder.rglob("*.onnx") if model.is_file()]
        if len(models) != 1:
            raise BuildError(f"the compiled model of '{graph.file.path}' contains {len(models)} ONNX files; expected 1")
        file = models[0]
    try:
        model = onnx.load(file)
        _check_boundary(model, graph)
        for node in model.graph.node:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            if node.op_type != CONTEXT_OP or attributes["embed_mode"].i == 1:
                continue
            context = file.parent / attributes["ep_cache_context"].s.decode()
            if not context.is_file():
                raise BuildError(f"the compiled model of '{graph.file.path}' refers to '{context.name}', which is missing")
            attributes["ep_cache_context"].s = context.read_bytes()
            attributes["embed_mode"].i = 1
        onnx.save(model, path)
    except BuildError:
        raise
    except Exception as error:  # protobuf's and onnx's exceptions have no common base below Exception
        raise BuildError(f"the compiled model of '{graph.file.path}' cannot be read: {error}") from error


def with_context_file(source: Path, target: Path, written: str, name: str) -> None:
    """Write a compiled graph whose context binary is the file `name` beside it, in place of the file `written`.

    Raises:
        BuildError: the graph is more than one node, or refers to another file.
    """
    model = _onnx().load(source)
    attributes = [{one.name: one for one in node.attribute} for node in model.graph.node if node.op_type == CONTEXT_OP]
    names = [each["ep_cache_context"].s.decode(errors="replace") for each in attributes]
    if len(model.graph.node) != 1 or names != [written]:
        raise BuildError(
            f"a compiled graph has {len(model.graph.node)} nodes and refers to {', '.join(names) or 'no context'}; "
            f"expected one {CONTEXT_OP} that refers to {written}"
        )
    attributes[0]["ep_cache_context"].s = name.encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    _onnx().save(model, target)


def nodes_outside_context(path: Path) -> tuple[str, ...]:
    """Return the types of a model's operators outside the NPU, except those that quantize inputs or dequantize outputs."""
    return tuple(dict.fromkeys(name for name in operators(path) if name not in _BOUNDARY_OPS))


def operators(path: Path) -> list[str]:
    """Return the operator type of every node of an ONNX model, in order."""
    return [node.op_type for node in _onnx().load(path, load_external_data=False).graph.node]


def _check_boundary(model: Any, graph: Graph) -> None:
    helper = _onnx().helper
    for kind, expected, values in (("inputs", graph.inputs, model.graph.input), ("outputs", graph.outputs, model.graph.output)):
        tensors = {value.name: value.type.tensor_type for value in values}
        present = {
            f"{name} {helper.tensor_dtype_to_np_dtype(tensor.elem_type).name} {[dim.dim_value for dim in tensor.shape.dim]}"
            for name, tensor in tensors.items()
        }
        wanted = {f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in expected}
        if present != wanted:
            raise BuildError(
                f"the compiled model of '{graph.file.path}' has other {kind} than its graph: "
                f"found {_sorted_lines(present - wanted)}; expected {_sorted_lines(wanted - present)}"
            )


def _sorted_lines(lines: set[str]) -> str:
    return ", ".join(sorted(lines)) or "nothing more"


def _onnx() -> Any:
    with requires_package("reading compiled models", hint=extra_hint("ai-hub")):
        import onnx
    return onnx
