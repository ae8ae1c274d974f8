"""Value faults: a record -> what is wrong with its samples, if anything is. Pure."""

from collections.abc import Sequence
from functools import lru_cache
from operator import le

from quadbench.artifacts import Kinds, RunRecord, SampleKind
from quadbench.artifacts.bundle import KERNEL_NODES
from quadbench.artifacts.launch_values import limits_of, value_fault

_MOST_NUMBER = 2**63  # of an iteration or step: what the database can hold


def values_fault(record: RunRecord) -> str | None:
    """Say what is wrong with a record's samples; None where nothing is. Old records may hold what is refused today."""
    if all(_are_usual(kinds, values) for kinds, values in record.columns.parts):
        return None
    for sample in record.samples:
        if fault := value_fault(sample.metric, sample.value) or _kind_fault(sample):
            return f"{sample.metric}{f' of task {sample.task}' if sample.task else ''} {fault}"
    return None


def _are_usual(kinds: Kinds, values: Sequence[float]) -> bool:
    """Say whether values are within their limits, as those of nearly all launches; others may be right all the same."""
    bounds = _bounds(kinds)
    return bounds is not None and all(map(le, bounds[0], values)) and all(map(le, values, bounds[1]))


@lru_cache(maxsize=100)  # a run has launches of a few plans
def _bounds(kinds: Kinds) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the lowest and the highest value of each kind; None where a kind itself is wrong."""
    if any(map(_kind_fault, kinds.each)):
        return None
    limits = [limits_of(kind.metric) for kind in kinds.each]
    return tuple(low for low, _, _ in limits), tuple(high for _, high, _ in limits)


def _kind_fault(kind: SampleKind) -> str | None:
    if not (_is_number(kind.iteration) and _is_number(kind.step)):
        return f"has iteration {kind.iteration} and step {kind.step}, expected numbers from 0"
    label = _label_lacking(kind)
    return f"has no label '{label}'" if label else None


def _label_lacking(kind: SampleKind) -> str | None:
    """Return the label without which nobody knows what the sample is about; None where it has it."""
    needed = "kind" if kind.metric == KERNEL_NODES else "adapter" if kind.labels.get("kind") == "adapter" else None
    return needed if needed not in kind.labels else None


def _is_number(number: int | None) -> bool:
    return number is None or 0 <= number < _MOST_NUMBER
