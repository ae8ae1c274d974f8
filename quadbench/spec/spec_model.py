"""YAML specs: reading a file as a pydantic model, with every problem reported as `file:line: key: reason`."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from quadbench.errors import nearest, quote
from quadbench.spec.files import fits_file_system
from quadbench.spec.yaml_document import Document, Location, describe, key_of, parse_document, read_document


@dataclass(frozen=True, kw_only=True)
class TextPattern:
    """A constraint on a text field: a regular expression, and a description for error messages."""

    pattern: str
    expected: str

    def matches(self, text: str) -> bool:
        """Return whether the regular expression `pattern` matches the whole text."""
        return re.fullmatch(self.pattern, text) is not None

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}

    def _checked(self, text: str) -> str:
        if not self.matches(text):
            raise ValueError(f"expected {self.expected}, found text {quote(text)}")
        return text


NAME_EXPECTED = "lower-case letters and digits in groups joined by single hyphens"
MAX_NAME_LENGTH = 64

_NAME = TextPattern(pattern="[a-z0-9]+(-[a-z0-9]+)*", expected=NAME_EXPECTED)
Name = Annotated[str, pydantic.Field(max_length=MAX_NAME_LENGTH), _NAME]


def is_name(text: str) -> bool:
    """Return whether the text is a valid name of a task, adapter or recipe."""
    return len(text) <= MAX_NAME_LENGTH and _NAME.matches(text)


class Spec(pydantic.BaseModel):
    """The immutable base class of models for YAML files. Unknown keys are errors. Text such as "5" never becomes a number."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)


def resolve_beside(path: Path, info: pydantic.ValidationInfo) -> Path:
    """Resolve a path in a spec file relative to the file's folder. Raise ValueError if no file system accepts the path."""
    text, folder = str(path), (info.context or {}).get("folder", Path())
    if not fits_file_system(path):
        raise ValueError(f"expected a path that a file system accepts, found {quote(text)} with {len(text)} characters")
    try:
        return Path(folder) / path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"expected a path, found {quote(text)} with an unknown home directory") from error


WHOLE_PATHS = {"paths": "whole"}  # serialization context that writes full paths, so that the spec can be read again


def _written(path: Path, info: pydantic.SerializationInfo) -> str:
    """Serialize a spec's path: absolute if the context is WHOLE_PATHS, else only the file name, so that digests omit folders."""
    return str(path.absolute()) if info.context == WHOLE_PATHS else path.name


SpecPath = Annotated[Path, pydantic.AfterValidator(resolve_beside), pydantic.PlainSerializer(_written, return_type=str)]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem in a YAML file: a location and a reason. The location lists keys and indexes, such as ("tasks", 1, "steps")."""

    location: Location
    reason: str


def refuse(problems: Iterable[Problem]) -> None:
    """Raise one pydantic error that contains all problems, each with its location. Do nothing if there are no problems.

    Raises:
        ValidationError: pydantic's error, which `load` turns into a SpecError.
    """
    errors = [
        InitErrorDetails(type=PydanticCustomError("spec", "{reason}", {"reason": p.reason}), loc=p.location, input=None)
        for p in problems
    ]
    if errors:
        raise pydantic.ValidationError.from_exception_data("spec", errors)


def refuse_in(path: Path, problems: Iterable[Problem]) -> None:
    """Raise one SpecError that lists problems of an already loaded spec file, each with its line. Do nothing if there are none.

    Raises:
        SpecError: all problems, or the file has changed since and cannot be read.
    """
    shown_problems = list(problems)
    document = read_document(path) if shown_problems else Document(path=path)
    for problem in shown_problems:
        document.add(document.line_of(problem.location), problem.location, problem.reason)
    document.raise_problems()


@dataclass(frozen=True, kw_only=True)
class Override:
    """A command-line value for a spec file's key. For `tasks[0].seed=7` (`written`), the key is `tasks[0].seed`, the value 7."""

    key: str
    value: Any
    written: str


def load(path: Path, model: type[ModelT], changes: Iterable[Override] = (), context: Mapping[str, Any] | None = None) -> ModelT:
    """Read a YAML file as an instance of the pydantic class `model`. Relative paths in the file start at the file's folder.

    `changes` replace values of the file; `context` is passed to the model's validators.

    Raises:
        SpecError: all problems of the file and of the changes.
    """
    document = read_document(path)
    for change in changes:
        document.set(change.key, change.value, change.written)
    return _validated(document, model, context or {})


def load_text(text: str, name: str, model: type[ModelT]) -> ModelT:
    """Read YAML text as an instance of `model`. Raise one SpecError with all problems. `name` is the file's name in errors."""
    return _validated(parse_document(text, Document(path=Path(name))), model, {})


def _validated(document: Document, model: type[ModelT], context: Mapping[str, Any]) -> ModelT:
    schema = _schema(model)
    _check_version(document, schema)
    try:
        parsed = model.model_validate_json(json.dumps(document.data), context={**context, "folder": document.path.parent})
    except pydantic.ValidationError as error:
        known = {(line, key) for line, key, _ in document.problems}
        refused = [_explain(details, schema, document) for details in error.errors(include_url=False) if not _is_echo(details)]
        document.problems.extend(problem for problem in refused if problem[:2] not in known)
    document.raise_problems()
    return parsed


@cache
def _schema(model: type[pydantic.BaseModel]) -> dict[str, Any]:
    """Return a pydantic model's JSON schema. Results are cached, as generating a schema takes tens of milliseconds."""
    return model.model_json_schema()


def near(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message about an unknown name: `; did you mean 'x'?`, or the known names if none is similar."""
    names = list(known)
    close = nearest(name, names)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(names) or 'none'}"


def _check_version(document: Document, schema: dict[str, Any]) -> None:
    """Raise a SpecError if a file's `schema_version` differs from the model's. A file without a version passes this check."""
    expected = schema.get("properties", {}).get("schema_version", {}).get("const")
    version = document.data.get("schema_version", expected)
    if version != expected or type(version) is not type(expected):
        reason = f"found {describe(version)}, this version of quadbench reads {expected}"
        document.add(document.lines[("schema_version",)], ("schema_version",), reason)
        document.raise_problems()


def _is_echo(details: ErrorDetails) -> bool:
    """Return whether pydantic calls a list too short although it has enough entries, as it does if an entry is invalid."""
    return details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]


def _explain(details: ErrorDetails, schema: dict[str, Any], document: Document) -> tuple[int, str, str]:
    """Convert a pydantic error to (line, key, reason). If a command-line override set the value: (0, override's text, reason)."""
    location, here, parent = _locate(details["loc"], schema, document.data)
    kind, context = details["type"], details.get("ctx", {})
    if kind.startswith("union_tag"):
        location = (*location, context["discriminator"].strip("'"))
        kind = "missing" if kind == "union_tag_not_found" else kind
        here = {"enum": list(here["discriminator"]["mapping"])}
    value = document.data
    for part in location:
        value = value[part] if _has(value, part) else None
    reason = _reason(kind, details, here, parent, value)
    if kind.startswith(("model", "dict")) and "discriminator" in here:
        tag = here["discriminator"]
        reason += f"; `{key_of((*location, tag['propertyName']))}` is {' or '.join(tag['mapping'])}"
    return *document.place_of(location), reason


def _locate(loc: Location, schema: dict[str, Any], data: Any) -> tuple[Location, dict[str, Any], dict[str, Any]]:
    """Find the value of a pydantic error. Return its location without union tags, its JSON schema and the parent's schema."""
    location: list[str | int] = []
    here, parent, defs = schema, schema, schema
    for part in loc:
        if part == "[key]":  # the key of the entry that we stand on is wrong, not its value
            break
        here = _resolve(here, defs)
        if "discriminator" in here:
            tag = data[here["discriminator"]["propertyName"]]
            here = _resolve({"$ref": here["discriminator"]["mapping"][tag]}, defs)
            if part == tag:  # errors of a validator around the union have no tag in their location
                continue
        parent, data = here, data[part] if _has(data, part) else None
        location.append(part)
        child = here.get("properties", {}).get(part) or here.get("items") or here.get("additionalProperties")
        child = child or next(iter(here.get("patternProperties", {}).values()), None)
        here = child if isinstance(child, dict) else {}
    return tuple(location), _resolve(here, defs), parent


def _resolve(here: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return schema `here` with `$ref` followed and `anyOf` replaced by its first non-null choice. Keep `here`'s `examples`."""
    examples = {name: here[name] for name in ("examples",) if name in here}
    while "$ref" in here or "anyOf" in here:
        here = (
            schema["$defs"][here["$ref"].rsplit("/", 1)[-1]]
            if "$ref" in here
            else next(choice for choice in here["anyOf"] if choice.get("type") != "null")
        )
    return {**here, **examples}


def _has(data: Any, part: str | int) -> bool:
    return (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int) and part < len(data))


_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "keys and values",
    "model": "keys and values",
    "path": "a path",
    "none": "null",
}


def _reason(kind: str, details: ErrorDetails, here: dict[str, Any], parent: dict[str, Any], value: Any) -> str:
    """Return an error message for a pydantic error, such as `expected a list, found true`. Rare kinds keep pydantic's message."""
    context, first = details.get("ctx", {}), kind.split("_")[0]
    choices = " or ".join(map(str, here.get("enum", [here["const"]] if "const" in here else [])))
    match kind:
        case "missing":
            example = next(iter(here.get("examples", [])), None)
            shown_example = f"; for example `{details['loc'][-1]}: {example}`" if example else ""
            return f"missing, expected {choices}" if choices else f"missing{shown_example}"
        case "extra_forbidden":
            return "unknown key" + near(str(details["loc"][-1]), parent.get("properties", {}))
        case "union_tag_invalid" | "literal_error":
            return f"expected {choices}, found {describe(value)}"
        case "too_short" | "string_too_short":
            return f"expected a length of at least {context['min_length']}, found {len(details['input'])}"
        case "too_long" | "string_too_long":
            return f"expected a length of at most {context['max_length']}, found {len(details['input'])}"
        case "spec" | "value_error":
            return details["msg"].removeprefix("Value error, ")
        case "finite_number" | "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            bounds = " and ".join(f"{word} {here[name]}" for name, word in _BOUNDS.items() if name in here)
            return f"expected {bounds or 'a finite number'}, found {describe(value)}"
        case _ if first in _EXPECTED:
            return f"expected {_EXPECTED[first]}, found {describe(value)}"
        case _:
            return details["msg"]


_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than"}
