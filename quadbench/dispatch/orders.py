"""The JSON payloads and results of farm jobs, validated when they are read: an invalid one is an ArtifactError."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from quadbench.artifacts import Variant
from quadbench.artifacts.safe_text import Sha256
from quadbench.errors import ArtifactError
from quadbench.farm.job import Job
from quadbench.pipeline import RunOptions
from quadbench.recipe import RunSettings
from quadbench.report.versus import Versus
from quadbench.results.documents import adapter_of
from quadbench.results.stored_runs import RunFile
from quadbench.spec import first_problem
from quadbench.statistics import Looks
from quadbench.study.run_comparison import Goal
from quadbench.target.targets import Target

_Word: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True, kw_only=True)
class BuildOrder:
    """The payload of a build job: the recipe as YAML text with absolute file paths, and the digest of the bundle to build."""

    kind: Literal["build"] = "build"
    recipe: str
    bundle: Sha256


@dataclass(frozen=True, kw_only=True)
class CompileOrder:
    """The payload of a compile job. `htp_arch` is the oldest Qualcomm HTP version of the devices that will run the result."""

    kind: Literal["compile"] = "compile"
    bundle: Sha256
    target: Target
    key: _Word
    htp_arch: _Word | None


@dataclass(frozen=True, kw_only=True)
class MeasureOrder:
    """The payload of a job that measures one device. `bundles` maps a device profile's name to the digest of the bundle to run.

    `name` is the run's name in messages. `target` selects a compile target of the profile; None selects the first.
    """

    kind: Literal["measure"] = "measure"
    name: _Word
    bundles: dict[_Word, Sha256]
    terms: RunSettings
    conduct: RunOptions
    target: _Word | None = None


@dataclass(frozen=True, kw_only=True)
class SideOrder:
    """One of the two builds in a comparison job's payload. `kit` is the digest of runtime libraries, or None for the default."""

    name: _Word
    bundle: Sha256
    variant: Variant
    kit: Sha256 | None
    terms: RunSettings


@dataclass(frozen=True, kw_only=True)
class CompareOrder:
    """The payload of a job that compares two builds, A and B, on one device. Launches of A and B alternate.

    The comparison ends when all `goals` have a verdict or the planned interim analyses (`looks`) are done. `word` is the device's
    name for people; `target` selects another compile target of its profile. `tasks` are the tasks to run; if empty, all of them.
    """

    kind: Literal["compare"] = "compare"
    case: _Word
    word: _Word
    a: SideOrder
    b: SideOrder
    looks: Looks
    goals: tuple[Goal, ...]
    tasks: tuple[_Word, ...]
    conduct: RunOptions
    target: _Word | None = None


@dataclass(frozen=True, kw_only=True)
class CompileAnswer:
    """The result of a compile job: digests of the source and the compiled bundle, and the compile target's name (`key`)."""

    bundle: Sha256
    key: _Word
    compiled: Sha256


@dataclass(frozen=True, kw_only=True)
class MeasureAnswer:
    """The result of a measurement job: a run file (`part`) that covers only the device that the job measured."""

    part: RunFile


@dataclass(frozen=True, kw_only=True)
class CompareAnswer:
    """The result of a comparison job: the comparison itself, and the run files of the two compared builds A and B."""

    versus: Versus
    runs: tuple[RunFile, RunFile]


Order: TypeAlias = BuildOrder | CompileOrder | MeasureOrder | CompareOrder
Answer: TypeAlias = CompileAnswer | MeasureAnswer | CompareAnswer
_ORDER: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="kind")])
AnswerT = TypeVar("AnswerT", CompileAnswer, MeasureAnswer, CompareAnswer)


def as_json(value: Order | Answer) -> dict[str, Any]:
    """Return a job's payload or result as plain JSON data."""
    plain: dict[str, Any] = json.loads(adapter_of(type(value)).dump_json(value))
    return plain


def order_of(job: Job) -> Order:
    """Parse the JSON payload of a job. Return it as an object of the class for the job's kind, such as BuildOrder."""
    try:
        return _ORDER.validate_json(json.dumps(dict(job.payload)))
    except ValidationError as error:
        raise ArtifactError(f"job {job.id} holds no order: {first_problem(error)}", hint="submit the run again") from error


def answer_of(job: Job, raw: Any, kind: type[AnswerT]) -> AnswerT:
    """Parse the JSON result `raw` of a finished job. Return an object of the class `kind`, such as MeasureAnswer."""
    try:
        return TypeAdapter(kind).validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise ArtifactError(f"job {job.id} has another answer than expected: {first_problem(error)}") from error
