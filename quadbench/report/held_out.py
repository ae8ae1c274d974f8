"""Held out: what a build saw on evaluation inputs -> tables of the SQNR at each step and of what clips, and curves."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from quadbench.artifacts.held_out import Clipping, HeldOut, TrajectorySqnr
from quadbench.artifacts.scores import RunScores
from quadbench.report.setups import titled
from quadbench.report.text_table import TextTable

SHOWN_TENSORS = 3


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A task's curves: for each variant (step, dB), steps counted from 1."""

    task: str
    curves: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]


def held_out_tables(held_out: HeldOut | None, where: str = "") -> tuple[TextTable, ...]:
    """Return a table of the SQNR along trajectories, and one of the activations that clip; none where nothing was judged.

    `where` are the devices that they are about, where that are not all.
    """
    if held_out is None:
        return ()
    tables = (_trajectory_table(held_out, _ON_CPU), *((_clipping_table(held_out),) if held_out.clippings else ()))
    return tuple(replace(table, title=titled(table.title, where)) for table in tables)


def emulated_tables(scores: RunScores) -> tuple[TextTable, ...]:
    """Return a table for each Qualcomm HTP on whose emulator U-Nets were run, of the SQNR along trajectories."""
    tables = {target: _trajectory_table(judged, _ON_EMULATOR) for target, judged in scores.emulated.items()}
    return tuple(replace(table, title=titled(table.title, target)) for target, table in tables.items())


def emulated_trajectories(scores: RunScores) -> tuple[Trajectory, ...]:
    """Return the curves of every task on every emulated HTP."""
    return tuple(curve for target, judged in scores.emulated.items() for curve in trajectories(judged, target))


def trajectories(held_out: HeldOut | None, where: str = "") -> tuple[Trajectory, ...]:
    """Return the curves of every task; `where` as above."""
    judged = held_out.trajectories if held_out else ()
    return tuple(
        Trajectory(task=titled(task, where), curves=tuple((one.variant, _points(one)) for one in judged if one.task == task))
        for task in dict.fromkeys(one.task for one in judged)
    )


def _points(trajectory: TrajectorySqnr) -> tuple[tuple[float, float], ...]:
    return tuple((step.step + 1.0, step.sqnr_db) for step in trajectory.steps if step.sqnr_db is not None)


_ON_CPU = "Over at most {inputs} evaluation inputs of each task, on this machine's CPU when the bundle was built. "
_ON_EMULATOR = "Over the first evaluation input of each task, on Qualcomm's HTP emulator and ONNX Runtime's CPU provider. "


def _trajectory_table(held_out: HeldOut, where: str) -> TextTable:
    return TextTable(
        title="SQNR of eps along the trajectory",
        columns=("Task", "Variant", "All steps, dB", "Worst step, dB", "At step", "First step, dB", "Last step, dB"),
        numeric=(False, False, True, True, True, True, True),
        rows=tuple(_trajectory_row(one) for one in held_out.trajectories),
        notes=(f"{where.format(inputs=held_out.inputs)}At every step the quantized U-Net is fed what the float one was.",),
    )


def _trajectory_row(one: TrajectorySqnr) -> tuple[str, ...]:
    worst, steps = one.worst, one.steps
    at = f"{worst.step + 1} of {len(steps)}" if worst else "–"
    ends = (steps[0].sqnr_db, steps[-1].sqnr_db) if steps else ("–", "–")
    values = (one.sqnr_db, worst.sqnr_db if worst else None, at, *ends)
    return (one.task, one.variant, *(value if isinstance(value, str) else _db(value) for value in values))


def _clipping_table(held_out: HeldOut) -> TextTable:
    return TextTable(
        title="Activations that clip",
        columns=("U-Net", "Values that clip", "Tensors", "Worst tensors: share of their values, widths of the range beyond it"),
        numeric=(False, True, True, False),
        rows=tuple(_clipping_row(one) for one in held_out.clippings),
        notes=(
            "Values of the float graph outside the ranges of the encodings, on the same inputs, none of which set a range. "
            "What clips costs far more than rounding: quad.calibration.ranges has headroom against it.",
        ),
    )


def _clipping_row(one: Clipping) -> tuple[str, ...]:
    unet = f"{one.variant}, {one.task}" if one.task else one.variant
    return (unet, _share(one.share), f"{one.clipped} of {one.tensors}", "; ".join(_worst(one)) or "none")


def _worst(one: Clipping) -> Iterator[str]:
    for tensor in one.worst[:SHOWN_TENSORS]:
        yield f"{tensor.tensor} {_share(tensor.share)}, {tensor.beyond:.2g}"


def _share(share: float) -> str:
    """Write a share so that one which is not zero does not look like it."""
    return "0" if share == 0 else f"{share:.2g}" if share < 1e-4 else f"{100 * share:.2g} %"


def _db(value: float | None) -> str:
    return "nothing differs" if value is None else f"{value:.1f}"
