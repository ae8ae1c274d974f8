"""Scripted night: phones with a fate, bundles with a cost -> a launcher that invents launches, but stores and compares them."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property

from quadbench.artifacts import DeviceFacts, RunRecord, RunResult, StoredArtifact, StoredBundle, Variant
from quadbench.artifacts.night_record import Point
from quadbench.measure.launch_schedule import Budget
from quadbench.nightly.launcher import NO_TIME, CaseRequest, CaseResult
from quadbench.nightly.night_file import Limits
from quadbench.nightly.night_plan import NightPlan, PlannedCase
from quadbench.report.versus import VersusDevice, caveats_of, interleaved_rows, sides_of_blocks
from quadbench.results.engine import Source
from quadbench.results.layout import Layout
from quadbench.results.nights import NightStore
from quadbench.results.records import open_records
from quadbench.results.stored_runs import new_id
from quadbench.study.run_comparison import SideSpec
from support.synthetic_run import S25, make_run

YARDSTICK, OLD, NEW = "aa" * 32, "bb" * 32, "cc" * 32
_NOISE = 0.002  # of a launch
_BETWEEN = timedelta(milliseconds=50)  # of nights that are remembered, so that they are over before tonight


@dataclass
class Phone:
    """A phone: all of its times are so many times as long, and the first tries there fail for these reasons."""

    pace: float = 1.0
    faults: list[str] = field(default_factory=list)


@dataclass
class ScriptedLauncher:
    """Launches on phones by their words, in nights that are a day apart.

    `costs` has by bundle and task how many times as long its images take. `asked` notes the case, the word and the blocks of
    each comparison; Ctrl-C is pressed before the one behind `interrupted_after` others, and with `fails_to_confirm` as the reason
    no confirmation comes to its end.
    """

    layout: Layout
    phones: dict[str, Phone]
    costs: dict[tuple[str, str], float] = field(default_factory=dict)
    is_away: bool = False  # the place of its files, for confirmations
    confirmed: list[tuple[str, ...]] = field(default_factory=list)  # the tasks of each confirmation
    interrupted_after: int | None = None
    fails_to_confirm: str | None = None
    day: int = 0
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    devices: dict[str, str] = field(default_factory=dict)  # under which names phones are leased that have another than their word

    def bundle(self, digest: str) -> StoredBundle:
        return StoredArtifact(artifact=replace(self._model.bundle, digest=digest), folder=self._model.stored.folder)

    def launch(self, wanted: Sequence[CaseRequest], budget: Budget | None) -> Iterator[CaseResult]:
        for one in wanted:
            for word in one.words:
                if len(self.asked) == self.interrupted_after:
                    raise KeyboardInterrupt
                if budget and budget.left_s <= 0:
                    yield CaseResult(case=one.case, word=word, reason=f"{NO_TIME} it")
                    continue
                self.asked.append((one.case, word, one.looks.at[-1]))
                if one.goals:
                    self.confirmed.append(one.tasks)
                if one.goals and self.is_away:
                    yield CaseResult(
                        case=one.case, word=word, reason="the store is not reached", is_transient=True, is_storage_failure=True
                    )
                    continue
                if self.fails_to_confirm and one.goals:
                    yield CaseResult(case=one.case, word=word, reason=self.fails_to_confirm, is_transient=True)
                else:
                    yield self._launched(one, word, self.phones[word])

    @cached_property
    def _model(self) -> RunResult:
        """A run of one launch, without its warm-up and with the first step alone, as its samples are stored many times."""
        run = make_run(self.layout.root, variants=(Variant.SHARED,), iterations=1)
        (record,) = run.records
        few = tuple(one for one in record.samples if not one.is_warmup and one.step in (None, 0))
        return replace(run, records=(replace(record, samples=few),))

    def _launched(self, wanted: CaseRequest, word: str, phone: Phone) -> CaseResult:
        if phone.faults:
            return CaseResult(case=wanted.case, word=word, reason=phone.faults.pop(0), is_transient=True)
        facts, runs, tasks = replace(S25, address=word, serial=word, family="adb"), (new_id(), new_id()), self._model.bundle.tasks
        sides = [
            (run_id, side.bundle.artifact.digest) for run_id, side in zip(runs, (wanted.a, wanted.b), strict=True) if side.bundle
        ]
        blocks = [
            [self._record(*sides[side], facts, phone.pace, 2 * number + k) for side, k in ((0, 0), (1, 0), (1, 1), (0, 1))]
            for number in range(wanted.looks.at[-1])
        ]
        with open_records(self.layout.database) as records:
            for block in blocks:
                for record in block:
                    records.store(record)
        a, b = sides_of_blocks(blocks, tasks, tasks)
        versus = VersusDevice(
            device=facts,
            blocks=len(blocks),
            looks=wanted.looks,
            rows=interleaved_rows(facts, a, b, wanted.looks),
            differences={},
            caveats=caveats_of((a.records, b.records)),
        )
        return CaseResult(
            case=wanted.case, word=word, device=self.devices.get(word, word), versus=versus, comparison=new_id(), runs=runs
        )

    def _record(self, run_id: str, digest: str, facts: DeviceFacts, pace: float, launch: int) -> RunRecord:
        (model,) = self._model.records
        dice, day = random.Random(f"{run_id} {launch}"), timedelta(days=self.day)
        luck = pace * (1 + _NOISE * dice.uniform(-1, 1))
        samples = [
            replace(one, value=round(one.value * luck * self.costs.get((digest, one.task or ""), 1.0)))
            if one.metric.endswith("_ns")
            else one
            for one in model.samples
        ]
        return replace(
            model,
            record_id=f"{run_id} {launch}",
            run_id=run_id,
            started_at=model.started_at + day,
            ended_at=model.ended_at + day,
            bundle_digest=digest,
            device=facts,
            launch=launch,
            caveats=(),
            samples=tuple(samples),
            images={},
        )


def remember(
    database: Source, night_id: str, nights: int, *, noise: float = 2 * _NOISE, faster: Mapping[str, float] | None = None
) -> None:
    """Give what a night has measured as many nights after it that differ by noise alone, each ruled CLEAN.

    Times on devices that are `faster` were so many times as long then, those of the yardstick too.
    """
    dice = random.Random(nights)
    with open_records(database) as records:
        store = NightStore(records.engine)
        first = store.night(night_id)
        for number in range(1, nights + 1):
            begun = store.begin(f"{night_id}-{number}", first.name, first.version, first.planned)
            for one in first.measurements:
                pace, luck = (faster or {}).get(one.address, 1.0), 1 + noise * dice.uniform(-1, 1)
                points = tuple(_about(point, luck, pace) for point in one.points)
                at = one.measured_at + number * _BETWEEN
                store.store(replace(one, night=begun.night_id, measured_at=at, points=points))
            store.add(replace(ruling, night=begun.night_id) for ruling in first.rulings)
            store.end(begun.night_id)


def _about(point: Point, luck: float, pace: float) -> Point:
    """Return a point with another luck, of a device that is faster or slower but for its memory."""
    if point.ratio is None or point.low is None or point.high is None or point.yardstick is None:
        return point
    pace = 1.0 if point.key.endswith("_ram") else pace
    return replace(
        point,
        value=point.value * luck * pace,
        yardstick=point.yardstick * pace,
        ratio=point.ratio * luck,
        low=point.low * luck,
        high=point.high * luck,
    )


def plan_of(
    launcher: ScriptedLauncher, cases: dict[str, str], words: Sequence[str] = (), faults: dict[str, str] | None = None
) -> NightPlan:
    """Return a night of cases, each with the digest of what it runs, on all phones or those of these words."""
    words = tuple(words or launcher.phones)
    yardstick = SideSpec(source="reference", changes={}, bundle=launcher.bundle(YARDSTICK))
    planned = [
        PlannedCase(
            name=name,
            yardstick=yardstick,
            side=SideSpec(source=name, changes={}, bundle=launcher.bundle(digest)),
            words=words,
            limits=Limits(),
            owner="ana@lab",
        )
        for name, digest in cases.items()
    ]
    return NightPlan(
        name="phones",
        cases=tuple(planned),
        pairs=tuple((name, word) for name in (*cases, *(faults or {})) for word in words),
        owners=dict.fromkeys((*cases, *(faults or {})), "ana@lab"),
        faults=faults or {},
        blocks=3,
        budget_s=None,
    )
