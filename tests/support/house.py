"""House rules: a package's folder -> what breaks them, one line each."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeGuard

from quadbench.cli.commands import COMMANDS

MOST_PARAMETERS = 8
MOST_FUNCTION_LINES = 60
MOST_FILE_LINES = 600
MOST_ENTRIES = 30
LEAST_FILE_LINES = 80  # of a module with one importer
MOST_IMPORTS = 0.06  # of a room's lines
MORE_IMPORTS = {  # rooms that are above it; these only get less
    "ai_hub": 0.072, "cli": 0.127, "compile": 0.08, "devices": 0.063, "doctor": 0.115, "harness": 0.066,
    "kits": 0.065, "measure": 0.068, "nightly": 0.075, "pipeline": 0.106, "quad": 0.085, "quality": 0.095,
    "results": 0.065, "rollout": 0.112, "serve": 0.09, "study": 0.116, "zoo": 0.08,
}  # fmt: skip
_ROOMS = ("quad/samplers/", "quad/families/")
FAMILIES = (*_ROOMS, *(f"cli/{name}.py" for name in COMMANDS))  # small modules with one protocol
UNDER_CHANGE = ("farm/", "dispatch/")  # an existing engine takes their place
_NO_ENTRIES = {"__init__.py", "__main__.py", "__pycache__", "py.typed"}
_RIDDLE = re.compile(r"(What|Whether|Of|Those|In which|Which|Whose|How|Why|Where|As|By|Under)\b")
_LISTED = re.compile(r"^(\w+(?:\.py|/)) {2,}\S", re.MULTILINE)
_ONE_LINE_RAISES = re.compile(r"Raises:[ \t]*\S")
_NO_NAMES = re.compile(r"(found|made)")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def double_classes(package: Path) -> list[str]:
    """Classes that share a name."""
    places: dict[str, list[str]] = defaultdict(list)
    for parsed in _parsed_modules(package):
        for node in parsed.nodes:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(parsed.name)
    return [f"{name}: {', '.join(where)}" for name, where in sorted(places.items()) if len(where) > 1]


def long_parameter_lists(package: Path) -> list[str]:
    """Functions that take more than a reader can hold, `self` not counted."""
    return [
        f"{path}: {node.name} takes {count}"
        for path, node in _functions(package)
        if (count := _parameters(node)) > MOST_PARAMETERS
    ]


def long_functions(package: Path) -> list[str]:
    """Functions longer than a screen."""
    return [
        f"{path}: {node.name} has {lines} lines"
        for path, node in _functions(package)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_FUNCTION_LINES
    ]


def long_files(package: Path) -> list[str]:
    """Files that should be two."""
    counts = {_name(package, path): len(path.read_text().splitlines()) for path in sorted(package.rglob("*.py"))}
    return [f"{name} has {count} lines" for name, count in counts.items() if count > MOST_FILE_LINES]


def slips(package: Path) -> list[str]:
    """Small modules that only one other imports, and so belong into it."""
    importers: dict[str, set[str]] = defaultdict(set)
    for parsed in _parsed_modules(package):
        for name in _imported(parsed):
            importers[name].add(parsed.name)
    counts = {path: len((package / path).read_text().splitlines()) for path in _modules(package)}
    return [
        f"{path} has {lines} lines and {len(importers[_dotted(path)])} importer"
        for path, lines in counts.items()
        if lines < LEAST_FILE_LINES and len(importers[_dotted(path)]) < 2
    ]


def double_files(package: Path) -> list[str]:
    """File names that stand in two rooms, but for those of families."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in _modules(package):
        places[Path(path).name].append(path)
    return [f"{name}: {', '.join(where)}" for name, where in sorted(places.items()) if len(where) > 1]


def long_imports(package: Path) -> list[str]:
    """Rooms that consist of imports for too large a part."""
    lines, imports = Counter[str](), Counter[str]()
    for parsed in _parsed_modules(package):
        if "/" in parsed.name and not parsed.name.startswith(UNDER_CHANGE):
            room = parsed.name.split("/")[0]
            lines[room] += len((package / parsed.name).read_text().splitlines())
            imports[room] += sum(
                (node.end_lineno or 0) - node.lineno + 1 for node in parsed.nodes if isinstance(node, ast.Import | ast.ImportFrom)
            )
    return [
        f"{room}: {imports[room] / lines[room]:.1%}"
        for room in lines
        if imports[room] > MORE_IMPORTS.get(room, MOST_IMPORTS) * lines[room]
    ]


def crowded_top(package: Path) -> list[str]:
    """The entries at the top, if they are more than a reader overlooks."""
    entries = sorted(path.name for path in package.iterdir() if path.name not in _NO_ENTRIES)
    return [f"{len(entries)} entries: {', '.join(entries)}"] if len(entries) > MOST_ENTRIES else []


def open_folders(package: Path) -> list[str]:
    """Folders with modules that are no packages: import contracts do not look into them."""
    folders = sorted({path.parent for path in package.rglob("*.py")})
    return [_name(package, folder) for folder in folders if not (folder / "__init__.py").is_file()]


def unlisted_files(package: Path) -> list[str]:
    """Packages whose docstring does not list each of their files and packages in a line of its own. The top lists files alone."""
    breaches = []
    for parsed in _parsed_modules(package):
        if parsed.name.endswith("__init__.py"):
            folder = (package / parsed.name).parent
            files = {path.name for path in folder.glob("*.py") if path.name != "__init__.py"}
            packages = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py") if folder != package}
            if wrong := set(_LISTED.findall(parsed.docstring)) ^ (files | packages):
                breaches.append(f"{parsed.name}: {', '.join(sorted(wrong))}")
    return breaches


def riddles(package: Path) -> list[str]:
    """Docstrings that cannot be read alone, because they open with half a sentence."""
    return [f"{path}: {name}: {text[:60]}" for path, name, text in _docstrings(package) if _RIDDLE.match(text)]


def other_raises(package: Path) -> list[str]:
    """Docstrings whose `Raises:` has text on its own line instead of an entry for each error below it."""
    return [f"{path}: {name}" for path, name, text in _docstrings(package) if _ONE_LINE_RAISES.search(text)]


def no_names(package: Path) -> list[str]:
    """Variables and parameters whose name says only that something was found or made. Fields may: files have their names."""
    return [
        f"{parsed.name}:{node.lineno}: {name}"
        for parsed in _parsed_modules(package)
        for node in parsed.bound
        if _NO_NAMES.fullmatch(name := node.id if isinstance(node, ast.Name) else node.arg)
    ]


@dataclass(frozen=True)
class _Parsed:
    """A module: its definitions and imports, and what it binds outside the fields of classes."""

    name: str
    docstring: str
    nodes: tuple[ast.AST, ...]
    bound: tuple[ast.Name | ast.arg, ...]


def _parsed_modules(package: Path) -> tuple[_Parsed, ...]:
    return _parsed(tuple((_name(package, path), path.read_text()) for path in sorted(package.rglob("*.py"))))


@lru_cache(maxsize=1)  # one rule after the other looks at the same package
def _parsed(sources: tuple[tuple[str, str], ...]) -> tuple[_Parsed, ...]:
    return tuple(_module(name, ast.parse(text)) for name, text in sources)


def _module(name: str, tree: ast.Module) -> _Parsed:
    nodes = list(ast.walk(tree))
    places = [node.body for node in nodes if isinstance(node, ast.ClassDef)]
    fields = {id(inner) for body in places for field in body if isinstance(field, ast.AnnAssign) for inner in ast.walk(field)}
    return _Parsed(
        name=name,
        docstring=ast.get_docstring(tree) or "",
        nodes=tuple(node for node in nodes if isinstance(node, Definition | ast.Module | ast.Import | ast.ImportFrom)),
        bound=tuple(node for node in nodes if _is_bound(node) and id(node) not in fields),
    )


def _name(package: Path, path: Path) -> str:
    return path.relative_to(package).as_posix()


def _modules(package: Path) -> Iterator[str]:
    """Modules to which the rules of files apply: no packages' own, no families, none whose room is under change."""
    for path in sorted(package.rglob("*.py")):
        name = _name(package, path)
        if path.name not in _NO_ENTRIES and not name.startswith((*FAMILIES, *UNDER_CHANGE)):
            yield name


def _dotted(path: str) -> str:
    return f"quadbench.{path.removesuffix('.py').replace('/', '.')}"


def _imported(parsed: _Parsed) -> Iterator[str]:
    """The modules that a module imports, as far as their names alone can say it."""
    for node in parsed.nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _functions(package: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for parsed in _parsed_modules(package):
        for node in parsed.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield parsed.name, node


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    taken = node.args
    names = [
        argument.arg for argument in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg) if argument
    ]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _docstrings(package: Path) -> Iterator[tuple[str, str, str]]:
    for parsed in _parsed_modules(package):
        for node in parsed.nodes:
            if isinstance(node, Definition | ast.Module) and (text := ast.get_docstring(node)):
                yield parsed.name, getattr(node, "name", "module"), text


def _is_bound(node: ast.AST) -> TypeGuard[ast.Name | ast.arg]:
    return isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
