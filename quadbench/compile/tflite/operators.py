"""Operators: a .tflite file -> the names of its operators in order."""

import mmap
from pathlib import Path

from ai_edge_litert import schema_py_generated as schema

_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}


def operators_of(path: Path) -> list[str]:
    """Return the name of every operator of the main graph; a custom one has its own."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:  # gigabytes of weights
        model = schema.Model.GetRootAs(content)
        codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
        graph = model.Subgraphs(0)
        used = (codes[graph.Operators(i).OpcodeIndex()] for i in range(graph.OperatorsLength()))
        return [code.CustomCode().decode() if code.CustomCode() else _NAMES[code.BuiltinCode()] for code in used]
