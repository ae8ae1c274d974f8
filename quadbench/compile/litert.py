"""LiteRT: compiling quantized graphs to .tflite files. If the target is an NPU, its vendor's compiler then compiles those files.

A vendor's compiler may leak memory, print anything and crash, so this module also runs as a program in a process of its own.
LiteRT's driver always ends with exit code 0, so the compiled file is checked; the outcome is a JSON file beside it.
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
from quadbench.compile.graph_compiler import CompileResult, SingleGraphCompiler, run_subprocess
from quadbench.compile.litert_sdk import aot_target, litert_version, sdk_for, search_path
from quadbench.compile.tflite import write_tflite
from quadbench.errors import BuildError, QuadbenchError
from quadbench.host import peak_memory_bytes, python_module
from quadbench.target.targets import vendor_of

TIMEOUT_S = 4 * 3600.0
OUTCOME = ".json"
DISPATCH = "DISPATCH_OP"  # LiteRT's operator for a part compiled by a vendor's compiler
_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
ON_CPU = {"GATHER"}  # token embedding look-ups, which MediaTek's plugin leaves to the CPU
# A log line of LiteRT with a fault, of any level, as plugins log faults as INFO; without the usual "no NPU on this machine".
_FAULT = re.compile(
    r"^[A-Z]+: \[\S+\] ((?!NPU accelerator|ERROR: ).*(?:fail|error|unsupported|cannot).*)", re.MULTILINE | re.IGNORECASE
)
_SHOWN_FAULTS = 5


@dataclass(frozen=True, kw_only=True)
class LiteRtCompiler(SingleGraphCompiler):
    """A compiler of .tflite files for LiteRT. If `soc` names a chip, the vendor's compiler translates each file for the NPU."""

    name, suffix = "litert", ".tflite"

    soc: str | None
    timeout_s: float = TIMEOUT_S

    def versions(self) -> dict[str, str]:
        """Return a dict by name: LiteRT's version and, if the target is an NPU, the chip and the version of the vendor's SDK."""
        chip = {} if self.soc is None else {"soc": self.soc, "sdk": sdk_for(self.soc).version}
        return {"ai-edge-litert": litert_version(), **chip}

    def compile_all(self, graphs: Sequence[Graph], source: Path, folder: Path, notify: Callable[[str], None]) -> CompileResult:
        product = super().compile_all(graphs, source, folder, notify)
        return product if self.soc else replace(product, caveats=(*product.caveats, Caveat.PLAIN_KERNELS))

    def compile_one(self, name: str, source: Path, product: Path) -> int:
        chip = ["--soc", self.soc] if self.soc else []
        argv = python_module(__name__, str(source), str(product), *chip)
        environment = dict(os.environ)
        if self.soc:
            environment["LD_LIBRARY_PATH"] = search_path(sdk_for(self.soc), product.parent, environment)
        result = run_subprocess(argv, product.with_suffix(".log"), self.timeout_s, environment)
        if not result.is_ok:
            raise BuildError("\n".join((f"LiteRT's compiler {result.description} on '{name}':", *result.last_lines)))
        outcome = json.loads(product.with_suffix(OUTCOME).read_text())
        if "refused" in outcome:
            raise BuildError(f"'{name}': {outcome['refused']}", hint=outcome["hint"])
        if "failed" in outcome:
            faults = list(dict.fromkeys(_FAULT.findall(outcome["said"]))) or outcome["said"].splitlines() or ["(no output)"]
            raise BuildError("\n".join((f"LiteRT's compiler for {self.soc} failed on '{name}':", *faults[-_SHOWN_FAULTS:])))
        if self.soc:
            refuse_partial_compile(self.soc, name, outcome["left"], outcome["dispatches"])
        return int(outcome["peak_memory_bytes"])


def refuse_partial_compile(soc: str, name: str, left: Sequence[str], dispatches: int) -> None:
    """Raise BuildError unless the NPU's part count `dispatches` is 1 and each operator in `left`, run by the CPU, is GATHER."""
    others = Counter(operator for operator in left if operator not in ON_CPU)
    if others or dispatches != 1:
        listed = ", ".join(f"{count} {operator}" for operator, count in others.most_common()) or "none"
        raise BuildError(
            f"the NPU of {soc} runs '{name}' in {dispatches} parts, expected one; operators left to the CPU: {listed}",
            hint="see docs/compilers.md for the supported operators, and the linter for each vendor's rules",
        )


def operators_of(path: Path) -> list[str]:
    """Return the operator names of a .tflite file's main graph. A custom operator is returned under its custom name."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:  # the weights may be gigabytes
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
        outcome = compile_file(arguments.source, arguments.product, arguments.soc)
    except QuadbenchError as error:
        outcome = {"refused": error.message, "hint": error.hint}
    arguments.product.with_suffix(OUTCOME).write_text(json.dumps(outcome))


def compile_file(source: Path, product: Path, soc: str | None) -> dict[str, Any]:
    """Compile a graph to a .tflite file. Return a dict: peak memory in bytes, operators left to the CPU, and error messages."""
    outcome: dict[str, Any] = {"left": [], "said": ""}
    if soc is None:
        write_tflite(source, product)
    else:
        outcome |= _compile_for_soc(soc, source, product)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return outcome | {"peak_memory_bytes": max(peak_memory_bytes(), children)}


def _compile_for_soc(soc: str, source: Path, product: Path) -> dict[str, Any]:
    """Compile a graph for an NPU. Return a dict: CPU operators and NPU part count or, after a failure, LiteRT's messages."""
    from ai_edge_litert.aot.aot_compile import aot_compile

    with tempfile.TemporaryDirectory(dir=product.parent) as name:
        folder = Path(name)
        tempfile.tempdir = name  # where LiteRT writes the messages
        write_tflite(source, folder / "graph.tflite")
        result = aot_compile(
            str(folder / "graph.tflite"), output_dir=str(folder / "made"), target=aot_target(vendor_of(soc), soc)
        )
        messages = "".join(path.read_text(errors="replace") for path in sorted(folder.glob("*.error")))
        products = [path for path in (folder / "made").glob("*.tflite") if path.stat().st_size]
        if result.failed_backends or len(products) != 1:
            return {"failed": True, "said": messages}
        products[0].rename(product)
    operators = operators_of(product)
    return {"left": [name for name in operators if name != DISPATCH], "dispatches": operators.count(DISPATCH)}


if __name__ == "__main__":
    main()
