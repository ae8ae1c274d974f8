"""QNN: quantized graphs -> one context binary for each, which a Qualcomm HTP runs whole, or the nodes that it refuses."""

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from quadbench.compile import qnn_process
from quadbench.compile.availability import package_version
from quadbench.compile.product import Ending, OneByOne, run_apart
from quadbench.compile.single_file import CONTEXT_OP, operators
from quadbench.errors import BuildError, MissingDependencyError
from quadbench.host import python_module

TIMEOUT_S = 4 * 3600.0  # the U-Net of Stable Diffusion 1.5 took 13 minutes on two cores
SHOWN_NODES = 8
_INSTALL_HINT = "pip install 'quadbench[qnn]'"
_UNSUPPORTED = re.compile(r"\{ name: ([^,]+), type: (\w+) \}")
_REASON = re.compile(r"((?:\tOperator type: .*\n)+)\tREASON : (.*)")
_MEMBER = re.compile(r"Operator type: (\S+) Node name: (\S+)")


@dataclass(frozen=True, kw_only=True)
class QnnCompiler(OneByOne):
    """Qualcomm's compiler as ONNX Runtime's plugin brings it, in a process for each graph."""

    name, suffix = "qnn", ".onnx"

    htp_arch: str  # v79
    soc_model: int
    timeout_s: float = TIMEOUT_S

    def versions(self) -> dict[str, str]:
        """Return versions and chip, the SDK's version too: a context binary runs on the SDK that wrote it, or a newer one."""
        plugin = package_version("onnxruntime_qnn")
        if plugin is None:
            raise MissingDependencyError("compiling for Qualcomm HTP needs the package onnxruntime-qnn", hint=_INSTALL_HINT)
        return {
            "onnxruntime": package_version("onnxruntime") or "not installed",
            "onnxruntime-qnn": plugin,
            "qairt": _sdk_version(),
            "htp_arch": self.htp_arch,
            "soc_model": str(self.soc_model),
        }

    def compile_one(self, name: str, source: Path, product: Path) -> int:
        ending = self._run(source, product)
        if not ending.is_ok:
            raise self._refusal(name, source, product, ending)
        if (written := operators(product)) != [CONTEXT_OP]:
            raise BuildError(f"QNN made of '{name}' a graph of {', '.join(written)}; expected one {CONTEXT_OP}")
        return int(json.loads(product.with_suffix(".json").read_text())["peak_memory_bytes"])

    def _run(self, source: Path, product: Path, *options: str) -> Ending:
        chip = ["--htp-arch", self.htp_arch.removeprefix("v"), "--soc-model", str(self.soc_model)]
        argv = python_module(qnn_process.__name__, "compile", str(source), str(product), *chip, *options)
        return run_apart(argv, product.with_suffix(".log"), self.timeout_s)

    def _refusal(self, name: str, source: Path, product: Path, ending: Ending) -> BuildError:
        """Return an error with the compiler's words; where it left nodes to the CPU, it is run once more to say why."""
        left = dict(_UNSUPPORTED.findall(ending.said))
        if not left:
            return BuildError("\n".join((f"QNN's compiler {ending.words} on '{name}':", *ending.last_lines)))
        explained = self._run(source, product.with_name("explained.onnx"), "--explain").said
        # A node is refused with those that quantize for it.
        reasons = {node: why for members, why in _REASON.findall(explained) for _, node in _MEMBER.findall(members)}
        nodes = [f"{op_type} '{node}' ({reasons.get(node, 'no reason given')})" for node, op_type in left.items()]
        more = [f"and {len(nodes) - SHOWN_NODES} more"] if len(nodes) > SHOWN_NODES else []
        return BuildError(
            "\n".join((f"Qualcomm HTP {self.htp_arch} leaves nodes of '{name}' to the CPU:", *nodes[:SHOWN_NODES], *more)),
            hint="write them as what it takes by a pass over the float graph (docs/qnn.md has the known forms)",
        )


def _sdk_version() -> str:
    """Return the version that the plugin's package names."""
    spec = find_spec("onnxruntime_qnn.build_and_package_info")
    match = re.search(r"qnn_version = '([^']+)'", Path(spec.origin).read_text()) if spec and spec.origin else None
    return match[1] if match else "unknown"
