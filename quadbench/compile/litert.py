"""LiteRT: quantized graphs -> .tflite files, as they are for LiteRT's CPU, or compiled by the vendor of a chip for its NPU."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quadbench.artifacts import Caveat, Graph
from quadbench.compile import litert_process
from quadbench.compile.litert_sdk import litert_version, sdk_for, search_path
from quadbench.compile.product import OneByOne, Product, run_apart
from quadbench.errors import BuildError
from quadbench.host import python_module

TIMEOUT_S = 4 * 3600.0
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
        """Return LiteRT's version, the chip and the version of its vendor's SDK.

        Raises:
            MissingDependencyError: LiteRT is not installed, or not what compiles for the chip.
        """
        if self.soc is None:
            return {"ai-edge-litert": litert_version()}
        return {"ai-edge-litert": litert_version(), "soc": self.soc, "sdk": sdk_for(self.soc).version}

    def compile_all(self, graphs: Sequence[Graph], source: Path, folder: Path, notify: Callable[[str], None]) -> Product:
        """Compile the graphs one after the other, each in a process of its own."""
        product = super().compile_all(graphs, source, folder, notify)
        return product if self.soc else replace(product, caveats=(*product.caveats, Caveat.PLAIN_KERNELS))

    def compile_one(self, name: str, source: Path, product: Path) -> int:
        """Write the product of one graph in a process of its own, and return the most memory that it took, in bytes."""
        chip = ["--soc", self.soc] if self.soc else []
        argv = python_module(litert_process.__name__, str(source), str(product), *chip)
        environment = dict(os.environ)
        if self.soc:
            environment["LD_LIBRARY_PATH"] = search_path(sdk_for(self.soc), product.parent, environment)
        ending = run_apart(argv, product.with_suffix(".log"), self.timeout_s, environment)
        if not ending.is_ok:
            raise BuildError("\n".join((f"LiteRT's compiler {ending.words} on '{name}':", *ending.last_lines)))
        outcome = json.loads(product.with_suffix(litert_process.OUTCOME).read_text())
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
