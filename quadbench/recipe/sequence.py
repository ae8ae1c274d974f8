"""Sequence: a list of tasks, or a trace file that names one a line -> the order in which a launch switches between them."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo

from quadbench.errors import UserError, shown
from quadbench.spec import NAME_EXPECTED, Name, beside, is_name, read_file

MOST_SWITCHES = 10_000
_MOST_BYTES = 2**20  # of a trace: MOST_SWITCHES of the longest names, and as much again for comments


def _from_trace(value: Any, info: ValidationInfo) -> Any:
    """Read a path as the trace that lies there; anything else stays for the list's own validation.

    Raises:
        ValueError: the file cannot be read, is no text, names nothing, or has a line that can be no task's name.
    """
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    path = beside(Path(value), info)
    try:
        lines = read_file(path, fault=UserError, most_bytes=_MOST_BYTES).decode("utf-8-sig").splitlines()
    except (UserError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a trace of task names: {error}") from error
    names = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")}
    for number, name in names.items():
        if not is_name(name):
            raise ValueError(f"expected {NAME_EXPECTED} in line {number} of '{path}', found {shown(name)}")
    if not names:
        raise ValueError(f"expected a trace of task names, found none in '{path}'")
    return tuple(names.values())


TaskSequence = Annotated[
    tuple[Name, ...],
    Field(max_length=MOST_SWITCHES),
    BeforeValidator(_from_trace, json_schema_input_type=tuple[Name, ...] | str),
]
