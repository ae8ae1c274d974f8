"""Write schemas: the JSON Schemas of what commands print -> docs/schemas."""

import json
from pathlib import Path

from quadbench.cli.result import document_schemas

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"


def main() -> None:
    """Write every schema; a test fails where a file is not what the code prints."""
    FOLDER.mkdir(exist_ok=True)
    for name, schema in document_schemas().items():
        (FOLDER / f"{name}.schema.json").write_text(json.dumps(schema, indent=1) + "\n")


if __name__ == "__main__":
    main()
