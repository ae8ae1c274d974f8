"""Code attempts: an order that is a file of Python code -> an attempt that runs it, and ends with the exit code that it gives."""

from pathlib import Path
from typing import Any


def run_code(order: str) -> int:
    names: dict[str, Any] = {"code": 0}
    exec(compile(Path(order).read_text(), order, "exec"), names)
    return int(names["code"])
