"""Toolchain target: a vendor's compiler as a device profile declares it -> commands whose placeholders are known to be right."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from quadbench.spec import Name, Problem, Spec, near, refuse

INPUT, WORK = "input", "work"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

Command = Annotated[tuple[str, ...], Field(min_length=1)]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class ToolchainVersion(Spec):
    """How to ask a toolchain for its version, and which versions will do."""

    command: Command
    pattern: str
    """Regular expression; what its only group finds in the command's output is the version."""

    @field_validator("pattern")
    @classmethod
    def _has_one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"expected a regular expression, found '{pattern}': {error}") from error
        if groups != 1:
            raise ValueError(f"expected a regular expression with one group, found '{pattern}' with {groups}")
        return pattern


class ToolchainTarget(Spec):
    """A vendor's compiler that is only commands.

    They run one after the other, without a shell, in an empty folder. In their words `{input}` stands for the path of the
    ONNX graph, `{work}` for that of the folder, and `{NAME}` for the environment variable NAME.
    """

    backend: Literal["toolchain"]
    name: Name
    environment: tuple[EnvironmentName, ...] = ()
    """Variables that must be set; the commands may name them as placeholders."""
    commands: tuple[Command, ...] = Field(min_length=1)
    product: str = Field(min_length=1)
    """What the commands leave in the folder: a relative path or pattern that fits one file."""
    version: ToolchainVersion
    timeout_s: int = Field(gt=0)
    """For each command and graph."""
    install: str = Field(min_length=1)
    """What to do where it is missing."""

    @field_validator("product")
    @classmethod
    def _lies_in_the_folder(cls, product: str) -> str:
        path = PurePosixPath(product)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"expected a path below the working folder, found '{product}'")
        return product

    @model_validator(mode="after")
    def _placeholders_are_known(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        for number, command in enumerate(self.commands):
            yield from _wrong_words(command, ("commands", number), (INPUT, WORK, *self.environment))
        yield from _wrong_words(self.version.command, ("version", "command"), self.environment)
        if INPUT not in {name for command in self.commands for name in placeholders(command)}:
            yield Problem(location=("commands",), reason=f"expected a command that reads {{{INPUT}}}, the graph; found none")


def placeholders(words: Iterable[str]) -> Iterator[str]:
    """The names in braces, in order."""
    for word in words:
        yield from _PLACEHOLDER.findall(word)


def filled(words: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The words with `values` in place of their placeholders."""
    return [_PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in words]


def _wrong_words(words: Sequence[str], location: tuple[str | int, ...], known: Sequence[str]) -> Iterator[Problem]:
    for number, word in enumerate(words):
        for name in placeholders([word]):
            if name not in known:
                yield Problem(location=(*location, number), reason=f"unknown placeholder '{{{name}}}'" + near(name, known))
        if set(_PLACEHOLDER.sub("", word)) & set("{}"):
            yield Problem(location=(*location, number), reason=f"expected braces around placeholders only, found '{word}'")
