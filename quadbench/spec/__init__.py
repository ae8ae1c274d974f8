"""Spec: reading YAML files into pydantic models, with every problem reported at its line."""

from quadbench.spec.files import first_problem, is_file, read_file, read_json
from quadbench.spec.spec_model import NAME_EXPECTED, Name, Problem, Spec, is_name, load, refuse
from quadbench.spec.variables import path_variable, variable

__all__ = [
    "NAME_EXPECTED",
    "Name",
    "Problem",
    "Spec",
    "first_problem",
    "is_file",
    "is_name",
    "load",
    "path_variable",
    "read_file",
    "read_json",
    "refuse",
    "variable",
]
