"""Next step: a run and what is doubtful of it -> what to do next, in sentences with the words to type; pure."""

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from quadbench.artifacts import Caveat, RunResult, Variant
from quadbench.report.baseline import Baseline
from quadbench.report.launches import sound
from quadbench.statistics import LAUNCHES_PER_BLOCK, MIN_BLOCKS

ELSEWHERE = frozenset({Caveat.VIRTUAL_DEVICE, Caveat.THIS_MACHINE})  # after which a phone is asked for
_CURED = (Caveat.DEBUG_BUILD, Caveat.THROTTLED, Caveat.LOADED_HOST, Caveat.UNEVEN_CALIBRATION)  # as their caveats say
ENOUGH = MIN_BLOCKS * LAUNCHES_PER_BLOCK  # the fewest launches of a variant for verdicts


def next_step(
    result: RunResult,
    caveats: Iterable[Caveat],
    baseline: Baseline | None,
    *,
    is_unequal: bool = False,
    launches: int = ENOUGH,
    words: Sequence[str] = (),
) -> str:
    """Return what helps most: going on, mending what failed, a phone where none was measured, and what cures the doubts.

    `is_unequal`: two sides that are compared met different conditions. `launches` of each side are needed for verdicts. `words`
    name the results folder in a command.
    """
    if result.is_cut_short:
        return f"Go on with the run: quadbench {shlex.join(('run', '--resume', result.run_id, *words))}"
    if any(not record.status.is_fine for record in result.records):
        return "See the reasons of the launches that failed (quadbench doctor --device NAME tries a device), and run again."
    doubted = set(caveats)
    steps = []
    if not ELSEWHERE.isdisjoint(doubted):
        steps.append("Attach a phone, see its name with quadbench devices, and run the same with --devices NAME.")
    else:
        steps += [caveat.cure for caveat in _CURED if caveat in doubted]
    if is_unequal:
        steps.append("Run again while nothing else runs: the two sides met different conditions.")
    if settings := list(_settings(result, doubted, launches)):
        steps.append(f"In the recipe, {' and '.join(settings)}.")
    if baseline and baseline.is_in_doubt:
        steps.append(f"To settle what changed, launch both in turn: {baseline.settled_by}")
    return " ".join(steps)


def next_of_comparison(caveats: Iterable[Caveat], *, is_in_turn: bool, is_decided: bool) -> str:
    """Return what helps most after a comparison, ending with a colon where the command for that is to follow."""
    doubted = set(caveats)
    if not is_in_turn:
        return "To know, launch both in turn:"
    steps = cures(doubted)
    if not ELSEWHERE.isdisjoint(doubted):
        steps.append("Attach a phone, see its name with quadbench devices, and put it where NAME stands:")
    elif steps:
        steps.append("Then:")
    elif not is_decided:
        return "Ask for a larger difference with --to-see, or find a quieter hour for the same again:"
    return " ".join(steps) or "Nothing has to be done."


def cures(caveats: Collection[Caveat]) -> list[str]:
    """Return what cures doubts about times before both sides are launched again."""
    return [caveat.cure for caveat in (*_CURED, Caveat.STILL_WARMING) if caveat in caveats]


def _settings(result: RunResult, caveats: Collection[Caveat], launches: int) -> Iterator[str]:
    if _launches(result, launches) < launches:
        yield f"set measure.launches to {launches} for verdicts on times and memory"
    elif Caveat.FEW_SAMPLES in caveats:
        yield "raise measure.iterations for percentiles"
    if Caveat.STILL_WARMING in caveats:
        yield "raise measure.warmup, as the first images were slower"


def _launches(result: RunResult, enough: int) -> int:
    """Return how many launches of the shared graph a device has; enough where nothing is there to be compared with."""
    records = sound(result.records)
    if not {Variant.SHARED, Variant.PER_GRAPH} <= {record.variant for record in records}:
        return enough
    return min(Counter(record.device.address for record in records if record.variant is Variant.SHARED).values())
