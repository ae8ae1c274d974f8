"""Orders: what a job tells the worker that does it, and what the worker answers: JSON that is checked when it is read."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from quadbench.artifacts import Variant
from quadbench.errors import ArtifactError
from quadbench.farm.job import Job
from quadbench.pipeline import Conduct
from quadbench.recipe import Terms
from quadbench.report.versus import Versus
from quadbench.results.stored_runs import RunFile
from quadbench.spec import first_problem
from quadbench.statistics import Looks
from quadbench.study.comparison_side import Goal
from quadbench.target.targets import Target

Digest: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Word: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True, kw_only=True)
class BuildOrder:
    """Build a recipe, whose text has the whole paths of its files. What comes out has to have the digest `bundle`."""

    kind: Literal["build"] = "build"
    recipe: str
    bundle: Digest


@dataclass(frozen=True, kw_only=True)
class CompileOrder:
    """Compile a bundle for a target. `htp_arch` is the oldest Qualcomm HTP of the devices that take what comes out."""

    kind: Literal["compile"] = "compile"
    bundle: Digest
    target: Target
    key: _Word
    htp_arch: _Word | None


@dataclass(frozen=True, kw_only=True)
class MeasureOrder:
    """Measure on one device what its run lacks: by the device's profile, the bundle. `name` is what is run, for people.

    `target` is another of the profile's targets than its first.
    """

    kind: Literal["measure"] = "measure"
    name: _Word
    bundles: dict[_Word, Digest]
    terms: Terms
    conduct: Conduct
    target: _Word | None = None


@dataclass(frozen=True, kw_only=True)
class SideOrder:
    """A side of a comparison. `name` is what it is, for people; a kit is named by its digest."""

    name: _Word
    bundle: Digest
    variant: Variant
    kit: Digest | None
    terms: Terms


@dataclass(frozen=True, kw_only=True)
class CompareOrder:
    """Launch two sides in turn on one device, for a case, until all goals are reached or the looks are through.

    `word` is what people call the device, and `target` another of its profile's targets than the first. `tasks` are those that
    are run of the ones that both have; none means all.
    """

    kind: Literal["compare"] = "compare"
    case: _Word
    word: _Word
    a: SideOrder
    b: SideOrder
    looks: Looks
    goals: tuple[Goal, ...]
    tasks: tuple[_Word, ...]
    conduct: Conduct
    target: _Word | None = None


@dataclass(frozen=True, kw_only=True)
class CompileAnswer:
    """The digest of what a bundle was compiled to, for the target with this key."""

    bundle: Digest
    key: _Word
    compiled: Digest


@dataclass(frozen=True, kw_only=True)
class MeasureAnswer:
    """The device's part of its run's file."""

    part: RunFile


@dataclass(frozen=True, kw_only=True)
class CompareAnswer:
    """The comparison of two sides on a device, and the files of their runs, A's first."""

    versus: Versus
    runs: tuple[RunFile, RunFile]


Order: TypeAlias = BuildOrder | CompileOrder | MeasureOrder | CompareOrder
Answer: TypeAlias = CompileAnswer | MeasureAnswer | CompareAnswer
_ORDER: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="kind")])
AnswerT = TypeVar("AnswerT", CompileAnswer, MeasureAnswer, CompareAnswer)


def as_json(value: Order | Answer) -> dict[str, Any]:
    """Return an order or an answer as JSON has it."""
    plain: dict[str, Any] = json.loads(TypeAdapter(type(value)).dump_json(value))
    return plain


def order_of(job: Job) -> Order:
    """Return what a job tells its worker.

    Raises:
        ArtifactError: its payload is no order.
    """
    try:
        return _ORDER.validate_json(json.dumps(dict(job.payload)))
    except ValidationError as error:
        raise ArtifactError(f"job {job.id} holds no order: {first_problem(error)}", hint="submit the run again") from error


def answer_of(job: Job, raw: Any, kind: type[AnswerT]) -> AnswerT:
    """Return what the worker of a job that is done has answered, as the database has it.

    Raises:
        ArtifactError: it is no such answer.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise ArtifactError(f"job {job.id} has another answer than expected: {first_problem(error)}") from error
