"""Whatever is submitted, fails or is lost: no seat has two jobs, no job is lost or done twice, and nobody starves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from quadbench.farm.job import Job, JobKind, JobState, claimed, expired, failed, finished, is_held
from quadbench.farm.need import capability_need, device_need, needs_served, wish_need
from quadbench.farm.scheduler import JobLine, Seat, Usage, assigned
from quadbench.farm.selection import Wish

START = datetime(2026, 1, 1, tzinfo=UTC)
OWNERS = ("ana", "ben", "cara")
MODELS = ("s25", "tabs11")
DEVICES = {f"phone-{number}": {"name": f"phone-{number}", "profile": MODELS[number % 2]} for number in range(4)}
NEEDS = (
    capability_need("build"),
    *map(device_need, DEVICES),
    *(wish_need(Wish(word=model, key="profile", value=model.upper(), count=1)) for model in MODELS),
)
SEATS = (
    Seat(name="host", serves=frozenset({capability_need("build")})),
    *(Seat(name=name, serves=needs_served(name, labels)) for name, labels in DEVICES.items()),
)
SEAT_OF = {seat.name: seat for seat in SEATS}
JOBS = st.lists(
    st.tuples(
        st.sampled_from(OWNERS),
        st.sampled_from(NEEDS),
        st.integers(-1, 1),  # priority
        st.sampled_from(["", "b-1", "b-2"]),
        st.lists(st.integers(0, 40), max_size=2),  # jobs that it needs, counted back
        st.integers(0, 100),  # the second in which it is submitted
        st.sampled_from(["done", "done", "done", "transient", "fatal", "lost"]),
        st.integers(1, 50),  # seconds that it takes
    ),
    max_size=40,
)


def job(number: int, owner: str = "ana", needs: str = NEEDS[0], **changes: object) -> Job:
    plain = Job(
        id=number, run_id="r", version="1", kind=JobKind.MEASURE, needs=needs, owner=owner, submitted_at=START, most_attempts=2
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@dataclass(kw_only=True)
class World:
    """The jobs of a farm with one worker, whose attempts end as they are told."""

    fates: Mapping[int, tuple[str, int]]
    jobs: dict[int, Job]
    now: datetime = START
    free: dict[str, Seat] = field(default_factory=lambda: dict(SEAT_OF))
    began: list[Job] = field(default_factory=list)
    attempts: dict[str, Job] = field(default_factory=dict)  # by seat

    def lines(self) -> list[JobLine]:
        ready: dict[tuple[str, str], list[Job]] = {}
        for one in sorted(self.jobs.values(), key=lambda one: (one.counts_from, one.id)):
            is_due = one.submitted_at <= self.now and (one.not_before is None or one.not_before <= self.now)
            if one.state is JobState.WAITING and is_due and all(self.jobs[n].state is JobState.DONE for n in one.after):
                ready.setdefault((one.owner, one.needs), []).append(one)
        return [JobLine(owner=owner, needs=needs, jobs=jobs) for (owner, needs), jobs in ready.items()]

    def claim(self) -> None:
        running = Counter(one.owner for one in self.attempts.values())
        usage = {owner: Usage(running=running[owner]) for owner in OWNERS}
        lines = self.lines()
        for one, seat in assigned(list(self.free.values()), lines, usage, self.now):
            assert self.jobs[one.id] == one
            assert one.needs in seat.serves
            del self.free[seat.name]  # which raises where it has a job
            attempt = claimed(one, "w", seat.name, self.now, 30.0)
            self.jobs[one.id] = self.attempts[seat.name] = attempt
            self.began.append(attempt)
        assert not any(line.needs in seat.serves for line in self.lines() for seat in self.free.values())  # no seat stays idle

    def end_what_is_over(self) -> None:
        for name, attempt in list(self.attempts.items()):
            fate, seconds = self.fates[attempt.id]
            if fate == "lost":
                is_over = attempt.until is not None and attempt.until <= self.now
            else:
                is_over = attempt.started_at is not None and attempt.started_at + timedelta(seconds=seconds) <= self.now
            if is_over:
                self.end(name, attempt, fate)

    def end(self, name: str, attempt: Job, fate: str) -> None:
        del self.attempts[name]
        self.free[name] = replace(SEAT_OF[name], affinity=attempt.affinity)
        match fate:
            case "done":
                ended = finished(attempt, self.now)
            case "lost":
                assert not is_held(attempt, attempt.attempt, self.now)
                ended = expired(attempt, self.now)
            case _:
                ended = failed(attempt, fate, self.now, is_transient=fate == "transient")
        assert not is_held(ended, attempt.attempt, self.now)
        self.jobs[attempt.id] = ended


def world_of(told: Sequence[tuple[str, str, int, str, list[int], int, str, int]]) -> World:
    jobs = {}
    for number, (owner, needs, priority, affinity, back, at_s, _, _) in enumerate(told):
        after = tuple(sorted({number - 1 - step for step in back if step < number}))
        submitted_at = START + timedelta(seconds=at_s)
        jobs[number] = job(number, owner, needs, priority=priority, affinity=affinity, after=after, submitted_at=submitted_at)
    return World(jobs=jobs, fates={number: (fate, min(seconds, 29)) for number, (*_, fate, seconds) in enumerate(told)})


@settings(max_examples=150, deadline=None)
@given(JOBS)
def test_each_job_is_done_once_on_a_seat_of_its_own_after_what_it_needs(
    told: list[tuple[str, str, int, str, list[int], int, str, int]],
) -> None:
    world = world_of(told)
    for second in range(0, 100 + 60 * len(told) + 120, 5):
        world.now = START + timedelta(seconds=second)
        world.end_what_is_over()
        world.claim()
    attempts = Counter(one.id for one in world.began)
    assert not world.attempts
    for number, one in world.jobs.items():
        if all(world.jobs[needed].state is JobState.DONE for needed in one.after):
            fate = world.fates[number][0]
            assert one.state is (JobState.DONE if fate == "done" else JobState.FAILED), one
            assert attempts[number] == {"done": 1, "fatal": 1}.get(fate, one.most_attempts)
        else:
            assert attempts[number] == 0
            assert one.state is JobState.WAITING


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(0, 3600), st.sampled_from(["", "b-1", "b-2"])), max_size=30))
def test_one_owner_s_jobs_begin_by_priority_and_then_by_age_but_for_what_needs_no_change(
    told: list[tuple[int, int, str]],
) -> None:
    jobs = [
        job(number, priority=priority, submitted_at=START + timedelta(seconds=at_s), affinity=affinity)
        for number, (priority, at_s, affinity) in enumerate(told)
    ]
    waiting, last, order = list(jobs), "", []
    while waiting:
        waiting.sort(key=lambda one: (one.counts_from, one.id))
        line = JobLine(owner="ana", needs=NEEDS[0], jobs=waiting)
        ((one, _),) = assigned([replace(SEATS[0], affinity=last)], [line], {}, START + timedelta(hours=1))
        assert one is waiting[0] or (one.affinity == last and one.priority == waiting[0].priority)
        assert one.counts_from - waiting[0].counts_from <= timedelta(minutes=10)
        waiting.remove(one)
        order.append(one)
        last = one.affinity
    assert len(order) == len(jobs)


def test_owners_take_turns_by_what_they_have() -> None:
    lines = [JobLine(owner=owner, needs=NEEDS[-1], jobs=[job(n, owner, NEEDS[-1]) for n in range(9)]) for owner in OWNERS]
    usage = {"ana": Usage(running=5), "ben": Usage(running=1), "cara": Usage(running=1, device_s=600.0)}
    seats = [seat for seat in SEATS if NEEDS[-1] in seat.serves]
    given_to = [one.owner for one, _ in assigned([*seats, replace(seats[0], name="more")], lines, usage, START)]
    assert given_to == ["ben", "cara", "ben"]


def test_a_line_from_which_nothing_was_taken_for_long_goes_first() -> None:
    lines = [JobLine(owner=owner, needs=NEEDS[0], jobs=[job(n, owner)]) for n, owner in enumerate(OWNERS)]
    usage = {"ana": Usage(running=9), "ben": Usage(), "cara": Usage()}
    now = START + timedelta(minutes=31)
    lines[1] = replace(lines[1], served_at=now)
    lines[2] = replace(lines[2], served_at=now)
    ((first, _),) = assigned(SEATS[:1], lines, usage, now)
    assert first.owner == "ana"
    ((first, _),) = assigned(SEATS[:1], lines, usage, now - timedelta(minutes=2))
    assert first.owner == "ben"


def test_whoever_floods_one_phone_keeps_nobody_from_it_who_has_others() -> None:
    """One phone in demand by all, others at one owner's jobs alone: every line is served, and nobody waits for ever."""
    needs, served_at = NEEDS[1], dict.fromkeys(OWNERS, START)
    turns: Counter[str] = Counter()
    for minute in range(0, 600, 10):
        now = START + timedelta(minutes=minute)
        lines = [
            JobLine(owner=owner, needs=needs, jobs=[job(minute, owner, needs)], served_at=served_at[owner]) for owner in OWNERS
        ]
        ((one, _),) = assigned([SEAT_OF["phone-0"]], lines, {"ana": Usage(running=5)}, now)
        served_at[one.owner] = now
        turns[one.owner] += 1
    assert min(turns.values()) >= 10


def test_a_wish_goes_where_nothing_changes_then_where_nobody_else_must_then_to_the_longest_rested() -> None:
    wish = NEEDS[-2]
    phones = [SEAT_OF["phone-0"], SEAT_OF["phone-2"]]
    line = JobLine(owner="ana", needs=wish, jobs=[job(1, needs=wish, affinity="b-1")])

    def given_to(*seats: Seat, others: Sequence[JobLine] = ()) -> str:
        pairs = assigned(seats, [line, *others], {"ben": Usage(running=9)}, START)
        return next(seat.name for one, seat in pairs if one.owner == "ana")

    hot, cool = replace(phones[0], rested_s=5.0), replace(phones[1], rested_s=500.0)
    assert given_to(hot, cool) == "phone-2"
    assert given_to(replace(hot, affinity="b-1"), cool) == "phone-0"
    named = JobLine(owner="ben", needs=device_need("phone-2"), jobs=[job(2, "ben", device_need("phone-2"))])
    assert given_to(hot, cool, others=[named]) == "phone-0"


@given(st.sampled_from([None, "name", "profile", "chip"]), st.sampled_from(["s25", "S25", "sm8750", "left"]))
def test_a_wish_is_served_just_where_it_fits(key: str | None, value: str) -> None:
    for labels in ({"name": "left", "profile": "s25"}, {"name": "s25", "chip": "SM8750"}, {"serial": "left"}):
        wish = Wish(word="", key=key, value=value, count=1)
        assert (wish_need(wish) in needs_served("R3CX", labels)) == wish.fits(labels)
