"""Names: what tasks, adapters, recipes and profiles may be called."""

import re
from typing import Annotated

from pydantic import Field

NAME_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"
NAME_EXPECTED = "lower-case letters and digits in groups joined by single hyphens"
LONGEST_NAME = 64

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=LONGEST_NAME)]


def is_name(text: str) -> bool:
    """Say whether a task, an adapter or a recipe may be called so."""
    return len(text) <= LONGEST_NAME and re.fullmatch(NAME_PATTERN, text) is not None
