"""Next step: a run and what is doubtful of it -> what to do next, in a sentence with the words to type; pure."""

from collections import Counter
from collections.abc import Iterable

from quadbench.artifacts import Caveat, RunResult, Status, Variant
from quadbench.report.baseline import Baseline
from quadbench.report.launches import sound
from quadbench.statistics import LAUNCHES_PER_BLOCK, MIN_BLOCKS

_ELSEWHERE = {Caveat.VIRTUAL_DEVICE, Caveat.THIS_MACHINE}
_ENOUGH = MIN_BLOCKS * LAUNCHES_PER_BLOCK  # launches of a variant, for verdicts


def next_step(result: RunResult, caveats: Iterable[Caveat], baseline: Baseline | None) -> str:
    """Return what helps most: going on, mending what failed, a phone where none was measured, or launches enough for verdicts."""
    if result.is_cut_short:
        return f"Go on with the run: quadbench run --resume {result.run_id}"
    if any(record.status not in (Status.OK, Status.DISCARDED) for record in result.records):
        return "See the reasons of the launches that failed (quadbench doctor --device NAME tries a device), and run again."
    told = []
    if not _ELSEWHERE.isdisjoint(caveats):
        told.append("Attach a phone, see its name with quadbench devices, and run the same with --devices NAME.")
    if _launches(result) < _ENOUGH:
        told.append(f"For verdicts on times and memory, set measure.launches to {_ENOUGH} in the recipe.")
    if baseline and baseline.is_in_doubt:
        told.append(f"To settle what changed, launch both in turn: {baseline.settled_by}")
    return " ".join(told)


def _launches(result: RunResult) -> int:
    """Return how many launches of the shared graph a device has; enough where nothing is there to be compared with."""
    records = sound(result.records)
    if not {Variant.SHARED, Variant.PER_GRAPH} <= {record.variant for record in records}:
        return _ENOUGH
    return min(Counter(record.device.address for record in records if record.variant is Variant.SHARED).values())
