"""Spec: a YAML file -> a model, or every problem of the file at its line."""

from quadbench.spec.document import Location, read_value
from quadbench.spec.model import NAME_EXPECTED, NAME_PATTERN, Name, Problem, Spec, SpecPath, load, near, refuse

__all__ = [
    "NAME_EXPECTED",
    "NAME_PATTERN",
    "Location",
    "Name",
    "Problem",
    "Spec",
    "SpecPath",
    "load",
    "near",
    "read_value",
    "refuse",
]
