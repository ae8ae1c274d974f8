"""Spec: a YAML file -> a model, or every problem of the file at its line."""

from quadbench.spec.document import Location, read_value
from quadbench.spec.files import first_problem, fits_file_system, is_file, read_file, read_json, require_file, require_unopened
from quadbench.spec.model import WHOLE_PATHS, Override, Problem, Spec, SpecPath, beside, load, load_text, near, refuse, refuse_in
from quadbench.spec.names import LONGEST_NAME, NAME_EXPECTED, Name, is_name
from quadbench.spec.text_like import TextLike
from quadbench.spec.variables import (
    host_of,
    masked,
    masked_in,
    number_variable,
    path_variable,
    paths_variable,
    port_of,
    port_variable,
    refuse_like_url,
    set_variable,
    variable,
    web_variable,
)

__all__ = [
    "LONGEST_NAME",
    "NAME_EXPECTED",
    "WHOLE_PATHS",
    "Location",
    "Name",
    "Override",
    "Problem",
    "Spec",
    "SpecPath",
    "TextLike",
    "beside",
    "first_problem",
    "fits_file_system",
    "host_of",
    "is_file",
    "is_name",
    "load",
    "load_text",
    "masked",
    "masked_in",
    "near",
    "number_variable",
    "path_variable",
    "paths_variable",
    "port_of",
    "port_variable",
    "read_file",
    "read_json",
    "read_value",
    "refuse",
    "refuse_in",
    "refuse_like_url",
    "require_file",
    "require_unopened",
    "set_variable",
    "variable",
    "web_variable",
]
