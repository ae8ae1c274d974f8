"""Code: a stage's module -> the digests of all of quadbench's own code that it runs, for the digest of what it makes."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from quadbench.results.digests import sha256_of

PACKAGE = Path(__file__).parents[1]


@cache
def code_digests(module: str) -> dict[str, str]:
    """Return the sha256 of the source of a module and of every module of quadbench that it imports, however indirectly.

    `module` is a dotted name, as `quadbench.quad.build`. Nothing is imported: the sources are read. What stands under
    `if TYPE_CHECKING` never runs and does not count; nor do packages that only lie around an imported module, since importing
    one does nothing.

    Raises:
        ModuleNotFoundError: quadbench has no such module.
    """
    pending, sources = [module], dict[str, Path]()
    while pending:
        name = pending.pop()
        if name in sources:
            continue
        sources[name] = _source(name)
        pending += [imported for imported in _imported(sources[name]) if imported not in sources]
    return {name: sha256_of(path) for name, path in sorted(sources.items())}


def _source(name: str) -> Path:
    place = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file():
            return path
    raise ModuleNotFoundError(f"quadbench has no module '{name}'", name=name)


def _is_module(name: str) -> bool:
    try:
        return name.split(".")[0] == PACKAGE.name and bool(_source(name))
    except ModuleNotFoundError:
        return False


def _imported(path: Path) -> Iterator[str]:
    """Yield the modules of quadbench that a file names in imports, wherever in it they stand."""
    for node in _running(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                dotted = [alias.name for alias in names]
            case ast.ImportFrom(module=str(package), names=names, level=0):
                dotted = [name if _is_module(name := f"{package}.{alias.name}") else package for alias in names]
            case _:
                continue
        yield from (name for name in dotted if name.split(".")[0] == PACKAGE.name)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the node and everything in it that can run: of `if TYPE_CHECKING` the other branch alone."""
    yield node
    is_typing = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    for child in node.orelse if isinstance(node, ast.If) and is_typing else ast.iter_child_nodes(node):
        yield from _running(child)
