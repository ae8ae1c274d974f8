"""Printed: what commands print as JSON -> the JSON Schemas of it."""

from typing import Any

from pydantic import TypeAdapter

from quadbench.nightly.history_formats import CaseDocument
from quadbench.report.night_formats import NightDocument
from quadbench.report.run_line import RunList
from quadbench.report.study_documents import ComparisonDocument, SweepDocument
from quadbench.report.view import RunSummary

_DOCUMENTS: dict[str, type[Any]] = {
    "comparison": ComparisonDocument,
    "history": CaseDocument,
    "night": NightDocument,
    "run": RunSummary,
    "runs": RunList,
    "sweep": SweepDocument,
}


def document_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas by name. New keys may come at any time, so that none refuses what it does not know."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    adapters = {name: TypeAdapter(document) for name, document in _DOCUMENTS.items()}
    return {name: {"$schema": dialect, **adapter.json_schema(mode="serialization")} for name, adapter in adapters.items()}
