"""Text like: a pattern and what it means in words -> an annotation of text: errors have the words, schemas the pattern."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from quadbench.errors import shown


@dataclass(frozen=True, kw_only=True)
class TextLike:
    """A demand on a text, as in `Annotated[str, TextLike(...)]`: a pattern for machines, and words for people."""

    pattern: str
    expected: str

    def fits(self, text: str) -> bool:
        """Say whether the whole text fits the pattern."""
        return re.fullmatch(self.pattern, text) is not None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}

    def _checked(self, text: str) -> str:
        if not self.fits(text):
            raise ValueError(f"expected {self.expected}, found text {shown(text)}")
        return text
