"""Spec: a YAML file -> a model, or every problem of the file at its line."""

from quadbench.spec.document import Location, read_value
from quadbench.spec.files import read_file, read_json, require_file
from quadbench.spec.model import Problem, Spec, SpecPath, load, near, refuse
from quadbench.spec.names import (
    LONGEST_NAME,
    NAME_EXPECTED,
    FileName,
    Name,
    RelativePath,
    Sha256,
    check_file_name,
    check_relative_path,
    is_name,
)

__all__ = [
    "LONGEST_NAME",
    "NAME_EXPECTED",
    "FileName",
    "Location",
    "Name",
    "Problem",
    "RelativePath",
    "Sha256",
    "Spec",
    "SpecPath",
    "check_file_name",
    "check_relative_path",
    "is_name",
    "load",
    "near",
    "read_file",
    "read_json",
    "read_value",
    "refuse",
    "require_file",
]
