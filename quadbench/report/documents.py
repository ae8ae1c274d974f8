"""Documents: what commands print as JSON -> the JSON Schema of each, by the name of its file in docs/schemas."""

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from quadbench.report.night_document import NightDocument
from quadbench.report.run_line import RunList
from quadbench.report.summary import RunSummary
from quadbench.report.sweep import Sweep


@dataclass(frozen=True, kw_only=True)
class SweepDocument(Sweep):
    """A sweep with the folder that holds its tables and pictures."""

    folder: str


_DOCUMENTS: dict[str, type[Any]] = {"night": NightDocument, "run": RunSummary, "runs": RunList, "sweep": SweepDocument}


def document_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas. New keys may come at any time, so that none refuses what it does not know."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    adapters = {name: TypeAdapter(document) for name, document in _DOCUMENTS.items()}
    return {name: {"$schema": dialect, **adapter.json_schema(mode="serialization")} for name, adapter in adapters.items()}
