"""Choose waiting jobs for a worker's free devices and for its host (both called seats). No database is used here.

One owner's jobs with the same requirement form a queue, ordered by priority and age. Queues take turns: first the owner with
the fewest running jobs, then the one with the least recent device time. A queue that got nothing for 30 minutes goes first.
"""

import heapq
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from quadbench.farm.job import Job

MOST_IN_LINE = 16  # jobs of a queue that are searched for one with the seat's affinity
TURN_S = 300.0  # device times within the same multiple of this count as equal
_STARVED = timedelta(minutes=30)
_PATIENCE = timedelta(minutes=10)  # a job is overtaken only by jobs that are younger by less than this


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A device or host that runs one job at a time, idle for `rested_s` seconds. `affinity` identifies its last job's files."""

    name: str
    serves: frozenset[str]
    rested_s: float = math.inf
    affinity: str = ""


@dataclass(frozen=True, kw_only=True)
class JobLine:
    """One owner's queue of waiting jobs (the first 16) with one requirement, and the time of its last job start, or None."""

    owner: str
    needs: str
    jobs: Sequence[Job]
    served_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """An owner's use of the farm: the number of running jobs, and the device time in seconds of jobs ended in the last hour."""

    running: int = 0
    device_s: float = 0.0


def assigned(
    seats: Sequence[Seat], lines: Sequence[JobLine], usage: Mapping[str, Usage], now: datetime
) -> list[tuple[Job, Seat]]:
    """Assign jobs to seats (devices or hosts) until no job fits, one job per seat. Return a list of (job, seat) pairs.

    While jobs are assigned, a queue's turn can only become later. So an outdated turn is pushed back; others need no update.
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
    """Mutable state of one `assigned` call: jobs left, free devices and hosts, and running jobs and device time by owner."""

    def __init__(self, seats: Sequence[Seat], lines: Sequence[JobLine], usage: Mapping[str, Usage], now: datetime) -> None:
        self._lines, self._now = lines, now
        self._jobs = [deque(line.jobs) for line in lines]
        self._served_at = [line.served_at for line in lines]
        self._running = Counter({owner: share.running for owner, share in usage.items()})
        self._turns_had = {owner: share.device_s // TURN_S for owner, share in usage.items()}
        self._free: dict[str, dict[str, Seat]] = {}  # by requirement, then by seat name
        wanted = {line.needs for line in lines}
        self._rivals = {seat.name: len(seat.serves & wanted) for seat in seats}
        for seat in seats:
            for need in seat.serves & wanted:
                self._free.setdefault(need, {})[seat.name] = seat

    def turn(self, number: int) -> tuple[object, ...] | None:
        """Return a queue's sort key, or None if it has no job or no free seat fits. The queue with the smallest key is next."""
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
        """Assign a queue's next job to the free device or host (seat) that suits the job best. Return the tuple (job, seat)."""
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
        """Return the next job's index. Prefer a job whose files a free device has, if at most 10 minutes newer than the first."""
        jobs = self._jobs[number]
        at_hand, latest = _affinities(self._free[self._lines[number].needs]), jobs[0].counts_from + _PATIENCE
        first = enumerate(islice(jobs, MOST_IN_LINE if at_hand else 0))
        return next((place for place, job in first if job.affinity in at_hand and job.counts_from <= latest), 0)

    def _suitability(self, job: Job, seat: Seat) -> tuple[bool, int, float]:
        """Return a sort key (a tuple) of a seat (device or host) for a job; the seat with the greatest key is best. The key:
        whether the seat has the job's files, minus the number of queued requirements it can serve, and its idle seconds.
        """
        return bool(job.affinity) and seat.affinity == job.affinity, -self._rivals[seat.name], seat.rested_s


def _affinities(seats: Mapping[str, Seat]) -> set[str]:
    return {seat.affinity for seat in seats.values()} - {""}
