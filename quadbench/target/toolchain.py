"""Toolchain target: a vendor's compiler as a device profile declares it -> commands whose placeholders are known to be right."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from quadbench.spec import Name, Problem, Spec, TextLike, near, refuse

INPUT, WORK = "input", "work"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

Command = Annotated[tuple[str, ...], Field(min_length=1)]
EnvironmentName = Annotated[
    str, TextLike(pattern="[A-Z][A-Z0-9_]*", expected="capital letters, digits and underscores, a letter first")
]


class ToolchainVersion(Spec):
    """The question after a toolchain's version, and the versions that will do."""

    command: Command
    """This command, the words of one line, prints the version."""
    pattern: str
    """The only group of this regular expression finds the version in the command's output; an output without it will not do."""

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
    """Compiles here, with commands of a vendor."""
    name: Name
    """The target's key is `toolchain-` and this name: lower-case letters and digits in groups joined by hyphens, at most 64
    characters."""
    environment: tuple[EnvironmentName, ...] = ()
    """These environment variables must be set; the commands may name them as placeholders. The default is none."""
    commands: tuple[Command, ...] = Field(min_length=1)
    """These commands, at least one, run in this order; one of them reads {input}."""
    product: str = Field(min_length=1)
    """The commands leave one file in the folder that this relative path or pattern fits."""
    version: ToolchainVersion
    """The toolchain is asked for its version in this way."""
    timeout_s: int = Field(gt=0)
    """Each command on each graph is stopped after this many seconds, above 0."""
    install: str = Field(min_length=1)
    """Users without the toolchain are told this."""

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
    """Yield the names in braces, in order."""
    for word in words:
        yield from _PLACEHOLDER.findall(word)


def filled(words: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return the words with `values` in place of their placeholders."""
    return [_PLACEHOLDER.sub(lambda match: values[match[1]], word) for word in words]


def _wrong_words(words: Sequence[str], location: tuple[str | int, ...], known: Sequence[str]) -> Iterator[Problem]:
    """Yield the placeholders that are not known, and braces around anything else."""
    for number, word in enumerate(words):
        for name in placeholders([word]):
            if name not in known:
                yield Problem(location=(*location, number), reason=f"unknown placeholder '{{{name}}}'" + near(name, known))
        if set(_PLACEHOLDER.sub("", word)) & set("{}"):
            yield Problem(location=(*location, number), reason=f"expected braces around placeholders only, found '{word}'")
