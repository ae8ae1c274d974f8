"""Scheduler: what is free at a worker and the jobs that wait -> which job goes where. Pure.

The jobs of one owner that need the same stand in a line, by priority and age. The lines take turns: first the owner with the
fewest running jobs, then the one that had devices for the least time lately. A line from which nothing was taken for long goes
first, so that nobody starves, whatever others do elsewhere.
"""

import heapq
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from quadbench.farm.job import Job

MOST_IN_LINE = 16  # jobs of a line that are looked at in search of one that needs no change on the device
TURN_S = 300.0  # of an owner, before another's equal share of the time counts as less
_STARVED = timedelta(minutes=30)
_PATIENCE = timedelta(minutes=10)  # a job is overtaken only by those that are younger by less


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A device, or room on a host, which takes one job at a time. `affinity` is that of its last job, `rested_s` since then."""

    name: str
    serves: frozenset[str]
    rested_s: float = math.inf
    affinity: str = ""


@dataclass(frozen=True, kw_only=True)
class JobLine:
    """The first jobs, in their order, of one owner that need the same. `served_at` is when the last of the line was begun."""

    owner: str
    needs: str
    jobs: Sequence[Job]
    served_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The share that an owner has of the farm: jobs that run, and the time that devices were at others lately."""

    running: int = 0
    device_s: float = 0.0


def assigned(
    seats: Sequence[Seat], lines: Sequence[JobLine], usage: Mapping[str, Usage], now: datetime
) -> list[tuple[Job, Seat]]:
    """Give jobs to seats until none is left that fits; no seat and no job twice.

    What a line waits for only grows while jobs are given, so a turn that has become later is put back and no other is looked at.
    """
    state = _Giving(seats, lines, usage, now)
    turns = [(turn, number) for number in range(len(lines)) if (turn := state.turn(number))]
    heapq.heapify(turns)
    given = []
    while turns:
        turn, number = heapq.heappop(turns)
        current = state.turn(number)
        if current == turn:
            given.append(state.give(number))
            current = state.turn(number)
        if current:
            heapq.heappush(turns, (current, number))
    return given


class _Giving:
    """The seats and jobs that are not given yet."""

    def __init__(self, seats: Sequence[Seat], lines: Sequence[JobLine], usage: Mapping[str, Usage], now: datetime) -> None:
        self._lines, self._now = lines, now
        self._jobs = [deque(line.jobs) for line in lines]
        self._served_at = [line.served_at for line in lines]
        self._running = Counter({owner: share.running for owner, share in usage.items()})
        self._turns_had = {owner: share.device_s // TURN_S for owner, share in usage.items()}
        self._free: dict[str, dict[str, Seat]] = {}  # by need, then by name
        wanted = {line.needs for line in lines}
        self._rivals = {seat.name: len(seat.serves & wanted) for seat in seats}
        for seat in seats:
            for need in seat.serves & wanted:
                self._free.setdefault(need, {})[seat.name] = seat

    def turn(self, number: int) -> tuple[object, ...] | None:
        """Return what says when it is this line's turn, the least first; None where nothing of it can be given."""
        line, jobs = self._lines[number], self._jobs[number]
        free = self._free.get(line.needs)
        if not jobs or not free:
            return None
        waits_since = max(jobs[0].submitted_at, self._served_at[number] or jobs[0].submitted_at)
        job = jobs[self._next(number)]
        return (
            self._now - waits_since < _STARVED,
            self._running[line.owner],
            self._turns_had.get(line.owner, 0.0),
            job.affinity not in _affinities(free),
            job.counts_from,
            job.id,
        )

    def give(self, number: int) -> tuple[Job, Seat]:
        """Give the line's next job to the seat that suits it best."""
        line, position = self._lines[number], self._next(number)
        job = self._jobs[number][position]
        del self._jobs[number][position]
        seat = max(self._free[line.needs].values(), key=lambda seat: self._suitability(job, seat))
        for need in seat.serves & self._free.keys():
            del self._free[need][seat.name]
        self._running[line.owner] += 1
        self._served_at[number] = self._now
        return job, seat

    def _next(self, number: int) -> int:
        """Return the place of the line's next job: the first that needs no change on a device, unless the head waits too long."""
        jobs = self._jobs[number]
        at_hand, latest = _affinities(self._free[self._lines[number].needs]), jobs[0].counts_from + _PATIENCE
        first = enumerate(islice(jobs, MOST_IN_LINE if at_hand else 0))
        return next((place for place, job in first if job.affinity in at_hand and job.counts_from <= latest), 0)

    def _suitability(self, job: Job, seat: Seat) -> tuple[bool, int, float]:
        """Return how well a seat suits: without a change there, for want of others that need it, then the longest rested."""
        return bool(job.affinity) and seat.affinity == job.affinity, -self._rivals[seat.name], seat.rested_s


def _affinities(seats: Mapping[str, Seat]) -> set[str]:
    return {seat.affinity for seat in seats.values()} - {""}
