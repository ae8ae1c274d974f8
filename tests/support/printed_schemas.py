"""Schemas: the name of what a command prints -> its JSON Schema in docs/schemas."""

import json
from pathlib import Path

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def schema(name: str) -> dict[str, object]:
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text())
