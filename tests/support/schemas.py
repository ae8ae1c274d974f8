"""Schemas: a JSON Schema with its `$defs` -> the properties whose descriptions tell a reader too little."""

import re
from collections.abc import Iterator
from typing import Any

_SENTENCES = re.compile(r"[A-Z`].*\s.*\s.*\.", re.DOTALL)  # three words at least, and a period


def poorly_described(schema: dict[str, Any]) -> list[str]:
    """Return the properties without a sentence, and those with a number as default that the sentence does not name."""
    return [f"{place}: {description}" for place, value, description in _properties(schema) if not _is_told(value, description)]


def _properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    for name, model in {schema["title"]: schema, **schema["$defs"]}.items():
        for key, value in model.get("properties", {}).items():
            yield f"{name}.{key}", value, value.get("description", "")


def _is_told(value: dict[str, Any], description: str) -> bool:
    default = value.get("default")
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    is_named = not is_number or f"The default is {default:g}." in description
    return is_named and _SENTENCES.fullmatch(description) is not None
