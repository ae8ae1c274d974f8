"""House rules: a package's folder -> what breaks them, one line each."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

MOST_PARAMETERS = 8
MOST_FUNCTION_LINES = 60
MOST_FILE_LINES = 600
MOST_ENTRIES = 30
_NO_ENTRIES = {"__init__.py", "__main__.py", "__pycache__", "py.typed"}
_RIDDLE = re.compile(r"(What|Whether|Of|Those|In which|Which|Whose|How|Why|Where|As|By|Under)\b")
_ONE_LINE_RAISES = re.compile(r"Raises:[ \t]*\S")
_NO_NAMES = re.compile(r"(found|made)")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def double_classes(package: Path) -> list[str]:
    """Classes that share a name."""
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in _trees(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)
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


def crowded_top(package: Path) -> list[str]:
    """The entries at the top, if they are more than a reader overlooks."""
    entries = sorted(path.name for path in package.iterdir() if path.name not in _NO_ENTRIES)
    return [f"{len(entries)} entries: {', '.join(entries)}"] if len(entries) > MOST_ENTRIES else []


def open_folders(package: Path) -> list[str]:
    """Folders with modules that are no packages: import contracts do not look into them."""
    folders = sorted({path.parent for path in package.rglob("*.py")})
    return [_name(package, folder) for folder in folders if not (folder / "__init__.py").is_file()]


def riddles(package: Path) -> list[str]:
    """Docstrings that cannot be read alone, because they open with half a sentence."""
    return [f"{path}: {name}: {text[:60]}" for path, name, text in _docstrings(package) if _RIDDLE.match(text)]


def other_raises(package: Path) -> list[str]:
    """Docstrings whose `Raises:` has text on its own line instead of an entry for each error below it."""
    return [f"{path}: {name}" for path, name, text in _docstrings(package) if _ONE_LINE_RAISES.search(text)]


def no_names(package: Path) -> list[str]:
    """Variables and parameters whose name says only that something was found or made. Fields may: files have their names."""
    return [
        f"{path}:{node.lineno}: {name}"
        for path, tree in _trees(package)
        for node in _outside_classes(tree)
        if (name := _bound(node)) and _NO_NAMES.fullmatch(name)
    ]


def _trees(package: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(package.rglob("*.py")):
        yield _name(package, path), ast.parse(path.read_text())


def _name(package: Path, path: Path) -> str:
    return path.relative_to(package).as_posix()


def _functions(package: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, tree in _trees(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    taken = node.args
    names = [
        argument.arg for argument in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg) if argument
    ]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _docstrings(package: Path) -> Iterator[tuple[str, str, str]]:
    for path, tree in _trees(package):
        for node in ast.walk(tree):
            if isinstance(node, Definition | ast.Module) and (text := ast.get_docstring(node)):
                yield path, getattr(node, "name", "module"), text


def _outside_classes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that stand straight in a class, which are its fields."""
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(tree, ast.ClassDef) and isinstance(child, ast.AnnAssign)):
            yield child
            yield from _outside_classes(child)


def _bound(node: ast.AST) -> str | None:
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
            return name
        case _:
            return None
