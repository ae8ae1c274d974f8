"""QNN: compiling quantized graphs to context binaries that run wholly on Qualcomm's HTP, and running them on an HTP emulator.

Qualcomm's library prints to stdout, keeps memory and may crash, so this module also runs as a program in a process of its own:
`compile SOURCE PRODUCT [SOURCE PRODUCT ...] --htp-arch ARCH --soc-model MODEL`, where several graphs get one context binary
that stores their equal weights once; or, on the chip's emulator, `run MODEL FOLDER COUNT --htp-arch ARCH`, which reads
FOLDER/0.npz, ... and writes the first outputs as FOLDER/0.npy, ...
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from quadbench.artifacts.bundle import CompileCost, Graph, Variant
from quadbench.compile.availability import package_version
from quadbench.compile.graph_compiler import ProcessResult, SingleGraphCompiler, removed_if_empty, run_subprocess
from quadbench.compile.single_file import CONTEXT_OP, operators, with_context_file
from quadbench.errors import BuildError, HarnessError, MissingDependencyError, extra_hint
from quadbench.host import peak_memory_bytes, python_module
from quadbench.results.digests import sha256_of
from quadbench.results.manifest import file_ref, link_file, temporary_folder

TIMEOUT_S = 4 * 3600.0  # the U-Net of Stable Diffusion 1.5 took 13 minutes on two cores
SHOWN_NODES = 8
PROVIDER = "QNNExecutionProvider"
SHARE = "ep.share_ep_contexts"  # a session's entry: its context is that of other sessions in the process
VERBOSE, ERROR = 0, 3  # ONNX Runtime's log severities
_INSTALL_HINT = extra_hint("qnn")
_UNSUPPORTED = re.compile(r"\{ name: ([^,]+), type: (\w+) \}")
_REASON = re.compile(r"((?:\tOperator type: .*\n)+)\tREASON : (.*)")
_MEMBER = re.compile(r"Operator type: (\S+) Node name: (\S+)")


@dataclass(frozen=True, kw_only=True)
class QnnCompiler(SingleGraphCompiler):
    """A compiler of graphs for Qualcomm's HTP. It runs ONNX Runtime's QNN plugin in a new process for each graph."""

    name, suffix = "qnn", ".onnx"

    htp_arch: str  # v79
    soc_model: int
    timeout_s: float = TIMEOUT_S

    def versions(self) -> dict[str, str]:
        """Return a dict from name to text: package versions, QAIRT SDK version and chip. Phones need this SDK or a newer one."""
        plugin = package_version("onnxruntime_qnn")
        if plugin is None:
            raise MissingDependencyError("compiling for Qualcomm HTP needs the package onnxruntime-qnn", hint=_INSTALL_HINT)
        spec = find_spec("onnxruntime_qnn.build_and_package_info")
        match = re.search(r"qnn_version = '([^']+)'", Path(spec.origin).read_text()) if spec and spec.origin else None
        return {
            "onnxruntime": package_version("onnxruntime") or "not installed",
            "onnxruntime-qnn": plugin,
            "qairt": match[1] if match else "unknown",
            "htp_arch": self.htp_arch,
            "soc_model": str(self.soc_model),
        }

    def compile_one(self, name: str, source: Path, product: Path) -> int:
        result = self._run(source, product)
        if not result.is_ok:
            raise self._refusal(name, source, product, result)
        if (written := operators(product)) != [CONTEXT_OP]:
            raise BuildError(f"QNN compiled '{name}' to a graph of {', '.join(written)}; expected one {CONTEXT_OP}")
        return int(json.loads(product.with_suffix(".json").read_text())["peak_memory_bytes"])

    def share_context(self, graphs: Sequence[Graph], source: Path, folder: Path) -> tuple[tuple[Graph, ...], CompileCost]:
        """Compile graphs into one context binary in `folder`. Return a Graph per graph with the binary as `data`, and the cost.

        The compiler stores weights once whose quantized bytes are equal in several graphs: those that no adapter changes.

        Raises:
            BuildError: the compiler failed, or wrote several context binaries.
        """
        place, store = folder / Variant.CONTEXT_SHARED.value, folder.parent / f".{self.name}"
        started = time.monotonic()
        with removed_if_empty(store), temporary_folder(store / "context") as work:
            products = [work / f"{i}.onnx" for i in range(len(graphs))]
            pairs = zip((source / graph.file.path for graph in graphs), products, strict=True)
            result = self._run(*chain.from_iterable(pairs))
            if not result.is_ok:
                description = f"QNN's compiler {result.description} on the {len(graphs)} graphs of one context:"
                raise BuildError("\n".join((description, *result.last_lines)))
            contexts = [file for file in work.iterdir() if file.suffix == ".bin"]
            if len(contexts) != 1:
                raise BuildError(f"QNN wrote {len(contexts)} context binaries for {len(graphs)} graphs; expected 1")
            data = place / sha256_of(contexts[0])  # devices name files by digest
            link_file(contexts[0], data)
            refs = []
            for graph, product in zip(graphs, products, strict=True):
                target = place / f"{graph.task}.onnx"
                with_context_file(product, target, contexts[0].name, data.name)
                refs.append(replace(graph, file=file_ref(folder, target), data=file_ref(folder, data)))
            peak = int(json.loads(products[-1].with_suffix(".json").read_text())["peak_memory_bytes"])
        return tuple(refs), CompileCost(seconds=round(time.monotonic() - started, 3), peak_memory_bytes=peak)

    def _run(self, *files: Path, options: Sequence[str] = ()) -> ProcessResult:
        """Compile `files`, a source and a product for each graph. A log lies beside the last product."""
        chip = ["--htp-arch", self.htp_arch.removeprefix("v"), "--soc-model", str(self.soc_model)]
        argv = python_module(__name__, "compile", *map(str, files), *chip, *options)
        return run_subprocess(argv, files[-1].with_suffix(".log"), self.timeout_s * (len(files) // 2))

    def _refusal(self, name: str, source: Path, product: Path, result: ProcessResult) -> BuildError:
        """Return the BuildError for a failed compile. If nodes are left to the CPU, compile again with a log of the reasons."""
        left = dict(_UNSUPPORTED.findall(result.output))
        if not left:
            return BuildError("\n".join((f"QNN's compiler {result.description} on '{name}':", *result.last_lines)))
        explained = self._run(source, product.with_name("explained.onnx"), options=["--explain"]).output
        # A node is refused together with its quantize and dequantize nodes.
        reasons = {node: why for members, why in _REASON.findall(explained) for _, node in _MEMBER.findall(members)}
        nodes = [f"{op_type} '{node}' ({reasons.get(node, 'no reason given')})" for node, op_type in left.items()]
        more = [f"and {len(nodes) - SHOWN_NODES} more"] if len(nodes) > SHOWN_NODES else []
        return BuildError(
            "\n".join((f"Qualcomm HTP {self.htp_arch} leaves nodes of '{name}' to the CPU:", *nodes[:SHOWN_NODES], *more)),
            hint="rewrite these nodes with a pass over the float graph; docs/compilers.md lists the forms that the HTP supports",
        )


def run_on_emulator(
    model: Path, htp_arch: str, feeds: Sequence[Mapping[str, np.ndarray]], *, timeout_s: float
) -> list[np.ndarray]:
    """Run a compiled graph on this machine's HTP emulator once per feed (input arrays by name). Return each run's first output.

    Raises:
        HarnessError: the emulator failed or timed out.
        MissingDependencyError: setpriv is not installed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, feed in enumerate(feeds):
            np.savez(folder / f"{i}.npz", **dict[str, Any](feed))
        chip = ["--htp-arch", htp_arch.removeprefix("v")]
        result = run_subprocess(
            python_module(__name__, "run", str(model), name, str(len(feeds)), *chip), folder / "said.log", timeout_s
        )
        if not result.is_ok:
            raise HarnessError("\n".join((f"the HTP emulator {result.description} on '{model.name}':", *result.last_lines)))
        return [np.load(folder / f"{i}.npy") for i in range(len(feeds))]


def main() -> None:
    """Run the command line: compile a graph, or run a compiled graph on the HTP emulator. Errors go to stderr."""
    parser = argparse.ArgumentParser()
    actions = parser.add_subparsers(dest="action", required=True)
    compiling, running = actions.add_parser("compile"), actions.add_parser("run")
    compiling.add_argument("files", type=Path, nargs="+", help="SOURCE PRODUCT [SOURCE PRODUCT ...]")
    compiling.add_argument("--soc-model", required=True)
    compiling.add_argument("--explain", action="store_true", help="log why each node was refused")
    running.add_argument("model", type=Path)
    running.add_argument("folder", type=Path)
    running.add_argument("count", type=int)
    for action in (compiling, running):
        action.add_argument("--htp-arch", required=True)
    arguments = parser.parse_args()
    if arguments.action == "run":
        session = _session(arguments.model, {}, {"htp_arch": arguments.htp_arch})
        for i in range(arguments.count):
            with np.load(arguments.folder / f"{i}.npz") as inputs:
                np.save(arguments.folder / f"{i}.npy", session.run(None, dict(inputs))[0])
        return
    sources, products = arguments.files[::2], arguments.files[1::2]
    chip = {"htp_arch": arguments.htp_arch, "soc_model": arguments.soc_model}
    for source, product in zip(sources, products, strict=True):
        entries = {
            "ep.context_enable": "1",
            "ep.context_file_path": str(product),
            "ep.context_embed_mode": "1",  # devices name files by digest, so a second file would not be found
        }
        if len(sources) > 1:  # the last session writes the context of all
            is_last = source is sources[-1]
            entries |= {"ep.context_embed_mode": "0", SHARE: "1", "ep.stop_share_ep_contexts": str(int(is_last))}
            chip["enable_htp_weight_sharing"] = "1"
        _session(source, entries, chip, severity=VERBOSE if arguments.explain else ERROR)
    products[-1].with_suffix(".json").write_text(json.dumps({"peak_memory_bytes": peak_memory_bytes()}))


def _session(model: Path, entries: Mapping[str, str], chip: Mapping[str, str], *, severity: int | None = None) -> Any:
    """Open an ONNX Runtime session in which the HTP runs all nodes, even those that quantize inputs and dequantize outputs."""
    import onnxruntime
    import onnxruntime_qnn

    options = onnxruntime.SessionOptions()
    if severity is not None:
        options.log_severity_level = severity
    for key, value in {"session.disable_cpu_ep_fallback": "1", **entries}.items():
        options.add_session_config_entry(key, value)
    options.add_provider_for_devices(_devices(), {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **chip})
    return onnxruntime.InferenceSession(str(model), options)


@cache
def _devices() -> list[Any]:
    """Load Qualcomm's plugin into this process and return a list of its first device."""
    import onnxruntime
    import onnxruntime_qnn

    onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER][:1]


if __name__ == "__main__":
    main()
