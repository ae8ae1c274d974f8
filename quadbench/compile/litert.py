"""LiteRT: quantized graphs -> .tflite files, as they are for LiteRT's CPU, or compiled by the vendor of a chip for its NPU.

A vendor's compiler may hold on to memory, print what it likes and crash. So this module is also a program, for a process of its
own. LiteRT's driver ends with exit code 0 whatever happened, so the product is looked at; what came of it lies beside it as JSON.
"""

import argparse
import json
import mmap
import os
import re
import resource
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from quadbench.artifacts import Caveat, Graph
from quadbench.compile.litert_sdk import aot_target, litert_version, sdk_for, search_path
from quadbench.compile.product import OneByOne, Product, run_apart
from quadbench.compile.tflite import write_tflite
from quadbench.errors import BuildError, QuadbenchError
from quadbench.host import peak_memory_bytes, python_module
from quadbench.target.targets import vendor_of

TIMEOUT_S = 4 * 3600.0
OUTCOME = ".json"
DISPATCH = "DISPATCH_OP"  # LiteRT's operator for what a vendor's compiler has made
_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
ON_CPU = {"GATHER"}  # the look-up of token embeddings, which MediaTek's plugin leaves to the CPU
# A line of LiteRT's log that names a fault, of any level: vendors' plugins log theirs as INFO. No NPU is here, as every log says.
_FAULT = re.compile(
    r"^[A-Z]+: \[\S+\] ((?!NPU accelerator|ERROR: ).*(?:fail|error|unsupported|cannot).*)", re.MULTILINE | re.IGNORECASE
)
_SHOWN_FAULTS = 5


@dataclass(frozen=True, kw_only=True)
class LiteRtCompiler(OneByOne):
    """quadbench's own writer of .tflite files and, where there is a chip, its vendor's compiler as LiteRT drives it."""

    name, suffix = "litert", ".tflite"

    soc: str | None
    timeout_s: float = TIMEOUT_S

    def versions(self) -> dict[str, str]:
        """Return LiteRT's version, the chip and the version of its vendor's SDK."""
        if self.soc is None:
            return {"ai-edge-litert": litert_version()}
        return {"ai-edge-litert": litert_version(), "soc": self.soc, "sdk": sdk_for(self.soc).version}

    def compile_all(self, graphs: Sequence[Graph], source: Path, folder: Path, notify: Callable[[str], None]) -> Product:
        product = super().compile_all(graphs, source, folder, notify)
        return product if self.soc else replace(product, caveats=(*product.caveats, Caveat.PLAIN_KERNELS))

    def compile_one(self, name: str, source: Path, product: Path) -> int:
        chip = ["--soc", self.soc] if self.soc else []
        argv = python_module(__name__, str(source), str(product), *chip)
        environment = dict(os.environ)
        if self.soc:
            environment["LD_LIBRARY_PATH"] = search_path(sdk_for(self.soc), product.parent, environment)
        ending = run_apart(argv, product.with_suffix(".log"), self.timeout_s, environment)
        if not ending.is_ok:
            raise BuildError("\n".join((f"LiteRT's compiler {ending.words} on '{name}':", *ending.last_lines)))
        outcome = json.loads(product.with_suffix(OUTCOME).read_text())
        if "refused" in outcome:
            raise BuildError(f"'{name}': {outcome['refused']}", hint=outcome["hint"])
        if "failed" in outcome:
            faults = list(dict.fromkeys(_FAULT.findall(outcome["said"]))) or outcome["said"].splitlines() or ["it said nothing"]
            raise BuildError("\n".join((f"LiteRT's compiler for {self.soc} fails on '{name}':", *faults[-_SHOWN_FAULTS:])))
        if self.soc:
            refuse_parts(self.soc, name, outcome["left"], outcome["dispatches"])
        return int(outcome["peak_memory_bytes"])


def refuse_parts(soc: str, name: str, left: Sequence[str], dispatches: int) -> None:
    """Refuse a product of which the NPU runs only a part. `left` are the operators beside its `dispatches`."""
    others = Counter(operator for operator in left if operator not in ON_CPU)
    if others or dispatches != 1:
        listed = ", ".join(f"{count} {operator}" for operator, count in others.most_common()) or "none"
        raise BuildError(
            f"the NPU of {soc} takes '{name}' in {dispatches} parts, operators left to the CPU: {listed}",
            hint="docs/litert.md has the forms that are written; the linter has each vendor's rules",
        )


def operators_of(path: Path) -> list[str]:
    """Return the name of every operator of the main graph; a custom one has its own."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:  # gigabytes of weights
        model = schema.Model.GetRootAs(content)
        codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
        graph = model.Subgraphs(0)
        used = (codes[graph.Operators(i).OpcodeIndex()] for i in range(graph.OperatorsLength()))
        return [code.CustomCode().decode() if code.CustomCode() else _NAMES[code.BuiltinCode()] for code in used]


def main() -> None:
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
