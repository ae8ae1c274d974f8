"""LiteRT process: a quantized graph and a path -> a .tflite file for LiteRT's CPU or, compiled, for an NPU; and what came of it.

Run as a program of its own, because a vendor's compiler may hold on to memory, print what it likes and crash. LiteRT's driver
ends with exit code 0 whatever happened, so the product is looked at. What came of it lies beside the product as JSON.
"""

import argparse
import json
import mmap
import resource
import tempfile
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from quadbench.compile.litert_sdk import aot_target
from quadbench.compile.tflite import write_tflite
from quadbench.errors import QuadbenchError
from quadbench.host import peak_memory_bytes
from quadbench.target.targets import vendor_of

_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
OUTCOME = ".json"
DISPATCH = "DISPATCH_OP"  # LiteRT's operator for what a vendor's compiler has made


def operators_of(path: Path) -> list[str]:
    """Return the name of every operator of the main graph; a custom one has its own."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:  # gigabytes of weights
        model = schema.Model.GetRootAs(content)
        codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
        graph = model.Subgraphs(0)
        used = (codes[graph.Operators(i).OpcodeIndex()] for i in range(graph.OperatorsLength()))
        return [code.CustomCode().decode() if code.CustomCode() else _NAMES[code.BuiltinCode()] for code in used]


def main() -> None:
    """Compile as the arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("product", type=Path)
    parser.add_argument("--soc")
    arguments = parser.parse_args()
    try:
        outcome = compiled(arguments.source, arguments.product, arguments.soc)
    except QuadbenchError as error:
        outcome = {"refused": error.message, "hint": error.hint}
    arguments.product.with_suffix(OUTCOME).write_text(json.dumps(outcome))


def compiled(source: Path, product: Path, soc: str | None) -> dict[str, Any]:
    """Write the product, and return the peak memory and the operators that no NPU takes."""
    outcome: dict[str, Any] = {"left": [], "said": ""}
    if soc is None:
        write_tflite(source, product)
    else:
        outcome |= _compiled_for(soc, source, product)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return outcome | {"peak_memory_bytes": max(peak_memory_bytes(), children)}


def _compiled_for(soc: str, source: Path, product: Path) -> dict[str, Any]:
    """Compile with the vendor's compiler. `said` has its words where it fails: LiteRT leaves them in a file of its own."""
    from ai_edge_litert.aot.aot_compile import aot_compile

    with tempfile.TemporaryDirectory(dir=product.parent) as name:
        folder = Path(name)
        tempfile.tempdir = name  # where LiteRT leaves the words
        write_tflite(source, folder / "graph.tflite")
        result = aot_compile(
            str(folder / "graph.tflite"), output_dir=str(folder / "made"), target=aot_target(vendor_of(soc), soc)
        )
        said = "".join(path.read_text(errors="replace") for path in sorted(folder.glob("*.error")))
        products = [path for path in (folder / "made").glob("*.tflite") if path.stat().st_size]
        if result.failed_backends or len(products) != 1:
            return {"failed": True, "said": said}
        products[0].rename(product)
    operators = operators_of(product)
    return {"left": [name for name in operators if name != DISPATCH], "dispatches": operators.count(DISPATCH)}


if __name__ == "__main__":
    main()
