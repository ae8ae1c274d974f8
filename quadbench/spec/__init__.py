"""Spec: reading YAML files into pydantic models, with every problem reported at its line.

spec_model.py     YAML files as pydantic models: overrides, problems at lines, names, paths
yaml_document.py  YAML as plain data with line numbers; limits of size and depth
files.py          reading regular files and JSON within size limits
variables.py      environment variables: paths, ports, URLs; passwords masked in URLs
"""

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
