"""Perform: the plan of a night and a launcher -> every case measured on every device, judged, confirmed and ruled on, once."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version

from quadbench.artifacts.night import Night, RulingKind
from quadbench.errors import ArtifactError, UserError
from quadbench.farm.farm_file import expected_phones
from quadbench.farm.inventory import Inventory
from quadbench.host import file_lock, user_and_host
from quadbench.measure import Budget
from quadbench.nightly.confirming import confirmed, is_unmeasured, judged, rule
from quadbench.nightly.judging import missing
from quadbench.nightly.launcher import NO_TIME, Launched, Launcher, Wanted, with_second_try
from quadbench.nightly.measured import measurement_of
from quadbench.nightly.performed import Performed
from quadbench.nightly.pictures import Pictures
from quadbench.nightly.plan import Plan, lacking
from quadbench.nightly.self_knowledge import doubt_devices
from quadbench.nightly.words import device_of
from quadbench.report.versus import PRIMARY
from quadbench.results.engine import database_of, now_of, reading
from quadbench.results.layout import Layout
from quadbench.results.nights import Nights
from quadbench.results.records import Records, open_records
from quadbench.results.storage import storing
from quadbench.statistics import Looks

log = logging.getLogger(__name__)


def perform(night_id: str, plan: Plan, launcher: Launcher, *, layout: Layout) -> Performed:
    """Perform a night, or go on with it: what was measured or ruled on stays. Of several that do so at once, one waits.

    Raises:
        StorageError, ArtifactError: the results folder or the database cannot be used, or is damaged.
        KeyboardInterrupt: Ctrl-C; what was measured is stored, and performed again the night goes on.
    """
    with _alone(night_id, layout), open_records(database_of(layout)) as records:
        nights = Nights(records.engine)
        night = nights.begin(night_id, plan.name, version("quadbench"), plan.pairs)
        budget = _budget(night, plan.budget_s, records)
        under_way = _UnderWay(
            night_id=night_id,
            plan=plan,
            launcher=launcher,
            budget=budget,
            nights=nights,
            records=records,
            pictures=Pictures(launcher=launcher, layout=layout),
        )
        under_way.measure(Looks(at=(plan.blocks,)))
        under_way.judge()
        under_way.tell_missing()
        nights.end(night_id)
        performed = Performed.of(nights.night(night_id), nights)
        there = {one.device for one in performed.night.measurements}
        doubt_devices(Inventory(records.engine), [one for one in performed.devices if one.device in there])
        return performed


@contextmanager
def _alone(night_id: str, layout: Layout) -> Iterator[None]:
    """Keep other nights out of a results folder. Where one is under way there, say so, and wait."""
    with storing(layout.root):
        layout.night(night_id).mkdir(parents=True, exist_ok=True)
    with file_lock(layout.night_lock, f"night {night_id}, by process {os.getpid()} of {user_and_host()},", _say_who):
        yield


def _say_who(holder: str) -> None:
    log.warning("%s is under way in this results folder; this one begins when that has ended", holder)


def _budget(night: Night, budget_s: float | None, records: Records) -> Budget | None:
    """Return what is left of the time of a night, which counts from when it first began, by the database's clock."""
    if budget_s is None:
        return None
    with reading(records.engine) as connection:
        spent_s = (now_of(connection) - night.began_at).total_seconds()
    return Budget(ends_at=time.monotonic() + budget_s - spent_s)


@dataclass(frozen=True, kw_only=True)
class _UnderWay:
    """A night under way. `causes` says why a case was not measured on a device, by the words of the file."""

    night_id: str
    plan: Plan
    launcher: Launcher
    budget: Budget | None
    nights: Nights
    records: Records
    pictures: Pictures
    causes: dict[tuple[str, str], str] = field(default_factory=dict)

    def measure(self, looks: Looks) -> None:
        """Measure what the night lacks."""
        there, damaged = self.nights.night(self.night_id).measurements, self.nights.damaged(self.night_id)
        self.causes.update(dict.fromkeys(damaged, "the database has a measurement of it, which cannot be read"))
        wanted = [
            Wanted(case=case.name, a=case.yardstick, b=case.chosen, words=words, looks=looks)
            for case in self.plan.cases
            if (words := tuple(word for word in lacking(case, there) if (case.name, word) not in damaged))
        ]
        for launched in with_second_try(self.launcher, wanted, self.budget):
            if why := launched.why or self._kept(launched):
                self.causes[launched.case, launched.word] = why

    def judge(self) -> None:
        """Rule on each measurement on which nothing was ruled yet; what the gate suspects is confirmed before.

        Where the files for that cannot be reached or written, nothing is ruled: the night can go on once they can.
        """
        open_ones = judged(self.night_id, self.plan.cases, self.nights)
        launched = confirmed([one for one in open_ones if one.said.to_confirm], self.launcher, self.budget)
        for one in open_ones:
            came = launched.get((one.case.name, one.tonight.address))
            if came and came.is_unstored:
                log.warning("case '%s' on '%s' is not ruled on: %s", one.case.name, one.tonight.address, came.why)
            else:
                rule(one, came, self.pictures.lacking(one.tonight, one.case), self.nights)

    def tell_missing(self) -> None:
        """Rule on what was not measured, and take back what was ruled so and was measured since."""
        night = self.nights.night(self.night_id)
        there = {(one.case, one.address): one for one in night.measurements}
        now, serials = datetime.now(UTC), _serials()
        rulings = [
            missing(
                self.night_id,
                case,
                device_of(word, self.nights.series(case, key=PRIMARY), serials),
                word,
                cause=self.plan.faults.get(case) or self.causes.get((case, word)) or f"{NO_TIME} it",
                owner=self.plan.owners[case],
                now=now,
            )
            for case, word in self.plan.pairs
            if (case, word) not in there
        ]
        over = [ruling for ruling in night.rulings if is_unmeasured(ruling) and (ruling.case, ruling.address) in there]
        back = [replace(one, kind=RulingKind.CLEAN, cause="it was measured later in this night", told_at=now) for one in over]
        self.nights.rule([*rulings, *back])

    def _kept(self, launched: Launched) -> str | None:
        """Keep what was measured; where that cannot be, say why."""
        try:
            records = [record for run_id in launched.runs for record in self.records.of_run(run_id)]
            (case,) = (one for one in self.plan.cases if one.name == launched.case)
            measured = measurement_of(self.night_id, launched, records, names_kit=case.chosen.kit is not None)
            scores = self.pictures.scored(measured, launched.address, case)
            is_new = self.nights.keep(replace(measured, points=(*measured.points, *scores)))
        except ArtifactError as error:
            return str(error)
        return None if is_new else f"'{measured.device}' is the device of another word too, under which it was measured"


def _serials() -> dict[str, str]:
    """Return the serials of the phones in farm.yaml by their names; where it cannot be read at this moment, none."""
    try:
        return {phone.name: phone.serial for phone in expected_phones()}
    except UserError as error:
        log.warning("phones are told by the words of the night's file: %s", error)
        return {}
