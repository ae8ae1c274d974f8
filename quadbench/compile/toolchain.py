"""Toolchain: compiling graphs with a vendor's command-line tools, which a device profile declares."""

import os
import re
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quadbench.artifacts import Graph
from quadbench.compile.graph_compiler import CompileResult, run_subprocess
from quadbench.errors import BuildError, MissingDependencyError
from quadbench.host import find_program
from quadbench.results.digests import sha256_of
from quadbench.results.manifest import file_ref
from quadbench.spec import is_file, variable
from quadbench.target.targets import INPUT, WORK, ToolchainTarget, filled, placeholders

WORK_NAME = "model"  # Samsung's enntools needs a graph with the same name as its folder
VERSION_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ToolchainCompiler:
    """A compiler that runs a vendor's commands in a temporary folder. It logs their output, and deletes the log on success."""

    target: ToolchainTarget

    def versions(self) -> dict[str, str]:
        """Return a toolchain's identity as a dict from name to text: version, commands, output pattern, environment variables.

        A variable that names a file counts by the file's SHA-256. One that names a folder does not count: the location of an SDK
        does not matter, as its version is included.
        """
        version = installed_version(self.target)
        commands = "; ".join(shlex.join(command) for command in self.target.commands)
        named = {name: value for name, value in _environment(self.target).items() if not os.path.isdir(value)}  # noqa: PTH112  (it raises nothing)
        settings = {name: sha256_of(Path(value)) if is_file(Path(value)) else value for name, value in named.items()}
        return {self.target.name: version, "commands": commands, "product": self.target.product, **settings}

    def compile_all(self, graphs: Sequence[Graph], source: Path, folder: Path, notify: Callable[[str], None]) -> CompileResult:
        """Compile each ONNX graph in `source` to a file in `folder`. Return a CompileResult with one Graph per new file."""
        products = []
        for graph in graphs:
            notify(graph.file.path)
            products.append(self._compiled(graph, source / graph.file.path, folder))
        return CompileResult(graphs=tuple(products))

    def _compiled(self, graph: Graph, source: Path, folder: Path) -> Graph:
        log = folder.parent / f"{self.target.name}-{graph.file.path.replace('/', '-')}.log"
        with tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as parent:
            work, log_path = Path(parent).resolve() / WORK_NAME, Path(parent, log.name)
            work.mkdir()
            values = {**_environment(self.target), INPUT: str(source.resolve()), WORK: str(work)}
            try:
                for command in self.target.commands:
                    argv = _located(filled(command, values))
                    result = run_subprocess(argv, work.with_name("said"), self.target.timeout_s, folder=work)
                    with log_path.open("a") as output:
                        output.write(f"$ {shlex.join(argv)}\n{result.output}")
                    if not result.is_ok:
                        raise BuildError("\n".join((f"'{Path(argv[0]).name}' {result.description}:", *result.last_lines)))
                product = _only_product(work, self.target.product)
            except BuildError as error:
                log_path.replace(log)  # atomic, in case another process writes there
                message = f"toolchain '{self.target.name}' on '{graph.file.path}': {error.message}"
                raise BuildError(message, hint=f"read its whole output in {log}") from error
            path = (folder / graph.file.path).with_suffix(product.suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            product.replace(path)
        log.unlink(missing_ok=True)
        return replace(graph, file=file_ref(folder, path))


def installed_version(target: ToolchainTarget) -> str:
    """Run a toolchain's version command and return the version. Raise MissingDependencyError if a part or version is missing."""
    if missing := missing_parts(target):
        raise MissingDependencyError(f"toolchain '{target.name}' lacks {', '.join(missing)}", hint=target.install)
    command = target.version.command
    argv = _located(filled(command, _environment(target)))
    with tempfile.TemporaryDirectory() as folder:
        result = run_subprocess(argv, Path(folder, "said"), VERSION_TIMEOUT_S, folder=Path(folder))
    output = f"nothing within {VERSION_TIMEOUT_S:g} s" if result.status is None else result.output.strip()
    match = re.search(target.version.pattern, output)
    if not match or not match[1]:  # the group may be optional
        words = " / ".join(output.splitlines()[-3:]) or "nothing"
        raise MissingDependencyError(
            f"toolchain '{target.name}': '{shlex.join(command)}' printed '{words}'; expected match: '{target.version.pattern}'",
            hint=target.install,
        )
    return match[1]


def missing_parts(target: ToolchainTarget) -> list[str]:
    """Return a list of a toolchain's unset variables and missing programs. Skip programs with an unset variable in the path."""
    values = _environment(target)
    missing = [f"the environment variable {name}" for name in target.environment if name not in values]
    programs = dict.fromkeys(command[0] for command in (*target.commands, target.version.command))
    for program in programs:
        if set(placeholders([program])) <= set(values) and find_program(filled([program], values)[0]) is None:
            missing.append(f"the program {program}")
    return missing


def _environment(target: ToolchainTarget) -> Mapping[str, str]:
    return {name: value for name in target.environment if (value := variable(name))}


def _located(argv: Sequence[str]) -> list[str]:
    """Return `argv` with its program's absolute path. The command runs in a temporary folder, where a relative path fails."""
    program = find_program(argv[0])
    return [str(program.absolute()) if program else argv[0], *argv[1:]]


def _only_product(work: Path, pattern: str) -> Path:
    products = [path for path in sorted(work.glob(pattern)) if path.is_file()]
    if len(products) != 1:
        there = ", ".join(str(path.relative_to(work)) for path in sorted(work.rglob("*")) if path.is_file()) or "none"
        raise BuildError(f"{len(products)} files match its product '{pattern}', expected one; files in its folder: {there}")
    if products[0].stat().st_size == 0:
        raise BuildError(f"its product '{products[0].relative_to(work)}' is empty")
    return products[0]
