"""Names: what tasks, adapters, recipes and profiles may be called."""

from typing import Annotated

from pydantic import Field

from quadbench.spec.text_like import TextLike

NAME_EXPECTED = "lower-case letters and digits in groups joined by single hyphens"
LONGEST_NAME = 64

_NAME = TextLike(pattern="[a-z0-9]+(-[a-z0-9]+)*", expected=NAME_EXPECTED)
Name = Annotated[str, Field(max_length=LONGEST_NAME), _NAME]


def is_name(text: str) -> bool:
    """Say whether a task, an adapter or a recipe may be called so."""
    return len(text) <= LONGEST_NAME and _NAME.fits(text)
