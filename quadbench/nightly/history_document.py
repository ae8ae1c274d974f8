"""History documents: cases with their histories, as commands print them, pages hold them and the live page's API sends them."""

from dataclasses import dataclass

from quadbench.nightly.history import CaseHistory
from quadbench.nightly.overview import Line

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CaseList:
    """The cases of nights, a line for each device."""

    schema_version: int = SCHEMA_VERSION
    cases: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class CaseDocument:
    """The history of a case on its devices, or of all cases. A page and the API leave out figures that nothing is said of."""

    schema_version: int = SCHEMA_VERSION
    case: str | None
    devices: tuple[CaseHistory, ...]
