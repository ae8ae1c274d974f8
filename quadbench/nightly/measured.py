"""Measured: launches of the yardstick (A) and of a case (B) in turn on a device -> what a night keeps of them; pure."""

from collections.abc import Iterator, Sequence

from quadbench.artifacts import RunRecord, Status
from quadbench.artifacts.fingerprint import fingerprint, unlike
from quadbench.artifacts.night import Measurement, Point, Subject
from quadbench.errors import ArtifactError
from quadbench.nightly.launcher import Launched
from quadbench.report.versus import SideRow, VersusDevice

_OWN = "case's "  # what begins the name of what is around the case's launches and not around the yardstick's


def measurement_of(night: str, launched: Launched, records: Sequence[RunRecord], *, names_kit: bool) -> Measurement:
    """Return what a night keeps of launches that went well. `records` are those of both runs.

    A kit belongs to what a case runs where it `names_kit`; else it is around it.

    Raises:
        ArtifactError: a side has no sound launch on the device.
    """
    versus, device = launched.versus, launched.device
    if versus is None or device is None:
        raise ArtifactError("launches in turn of which nothing came cannot be kept")
    sides = [_sound(run_id, versus, records) for run_id in launched.runs]
    for run_id, side in zip(launched.runs, sides, strict=True):
        if not side:
            raise ArtifactError(f"run {run_id} has no sound launch on '{versus.device.address}' in the database")
    yardstick, case = sides
    kit = case[0].versions.get("kit") if names_kit else None
    return Measurement(
        night=night,
        case=launched.case,
        device=device,
        address=launched.word,
        measured_at=max(record.ended_at for record in (*yardstick, *case)),
        subject=Subject(bundle=case[0].bundle_digest, kit=kit),
        yardstick=yardstick[0].bundle_digest,
        environment=_environment(yardstick, case),
        comparison=launched.comparison,
        runs=launched.runs,
        caveats=versus.caveats,
        points=tuple(point for row in versus.rows for point in _points(row)),
    )


def _sound(run_id: str, versus: VersusDevice, records: Sequence[RunRecord]) -> list[RunRecord]:
    address = versus.device.address
    return [r for r in records if (r.run_id, r.device.address, r.status) == (run_id, address, Status.OK)]


def _environment(yardstick: Sequence[RunRecord], case: Sequence[RunRecord]) -> dict[str, str]:
    """Return what is around the yardstick's launches, and what is other around the case's, which it has set itself."""
    first, second = ([fingerprint(record) for record in side] for side in (yardstick, case))
    around = unlike(first, [{}])
    own = unlike(first, second)
    return {name: text for name, (text, _) in around.items()} | {f"{_OWN}{name}": text for name, (_, text) in own.items()}


def _points(row: SideRow) -> Iterator[Point]:
    if row.b is None:
        return
    told = row.comparison
    if row.a is None or told is None or told.ratio is None:
        yield Point(task=row.task, key=row.key, value=row.b.value)
    else:
        yardstick = row.a.value
        yield Point(
            task=row.task, key=row.key, value=row.b.value, yardstick=yardstick, ratio=told.ratio, low=told.low, high=told.high
        )
