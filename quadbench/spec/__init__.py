"""Spec: a YAML file -> a model, or every problem of the file at its line."""

from quadbench.spec.document import Location, read_value
from quadbench.spec.files import first_problem, is_file, read_file, read_json, require_file
from quadbench.spec.model import Problem, Spec, SpecPath, load, near, refuse
from quadbench.spec.names import LONGEST_NAME, NAME_EXPECTED, Name, is_name

__all__ = [
    "LONGEST_NAME",
    "NAME_EXPECTED",
    "Location",
    "Name",
    "Problem",
    "Spec",
    "SpecPath",
    "first_problem",
    "is_file",
    "is_name",
    "load",
    "near",
    "read_file",
    "read_json",
    "read_value",
    "refuse",
    "require_file",
]
