"""Score faults: the scores of a stored run -> what is wrong with their values, which are those of no such run."""

import math
from collections.abc import Collection, Iterator

from quadbench.artifacts import Variant
from quadbench.artifacts.bundle import TrajectorySqnr
from quadbench.artifacts.run_record import Compared, RunScores, Score
from quadbench.errors import shown

_MADE = {*Variant, "reference"}
_AGAINST = {"reference", "truth"}
_MOST_COUNTED = 10**9  # images, latents or predictions
_GREATEST = 1e12  # of any metric: distances of features are far below


def scores_fault(scores: RunScores, tasks: Collection[str], devices: Collection[str]) -> str | None:
    """Say what is first wrong with the scores of a run of these tasks on these devices; None where nothing is."""
    for place, compared in enumerate(scores.compared):
        for fault in _faults(compared, tasks, devices):
            return f"compared.{place}: {fault}"
    for target, judged in scores.emulated.items():
        for trajectory in judged.trajectories:
            for fault in _of_trajectory(trajectory, tasks):
                return f"emulated.{shown(target)}: {fault}"
    return None


def _faults(compared: Compared, tasks: Collection[str], devices: Collection[str]) -> Iterator[str]:
    if compared.task not in tasks:
        yield f"task '{compared.task}', which the run has not; expected {', '.join(tasks)}"
    if compared.device is not None and compared.device not in devices:
        yield f"device '{compared.device}', on which the run was not; expected {', '.join(devices)}"
    if compared.made not in _MADE or compared.against not in _AGAINST:
        yield f"'{compared.made}' against '{compared.against}'; expected a variant or the reference, against reference or truth"
    for score in compared.scores:
        yield from _of_score(score)


def _of_trajectory(trajectory: TrajectorySqnr, tasks: Collection[str]) -> Iterator[str]:
    if trajectory.task not in tasks:
        yield f"task '{trajectory.task}', which the run has not; expected {', '.join(tasks)}"
    for value in (trajectory.sqnr_db, *(step.sqnr_db for step in trajectory.steps)):
        if value is not None and not abs(value) <= _GREATEST:
            yield f"SQNR is {value:g}; expected at most {_GREATEST:g} in size"


def _of_score(score: Score) -> Iterator[str]:
    if not 0 <= score.n <= _MOST_COUNTED:
        yield f"{score.metric.name} has n {score.n}; expected 0 to {_MOST_COUNTED}"
    for value in (score.value, score.worst):
        if isinstance(value, float) and not (math.isfinite(value) and abs(value) <= _GREATEST):
            yield f"{score.metric.name} is {value:g}; expected at most {_GREATEST:g} in size"
