"""Choose waiting jobs for a worker's free devices and for its host (both called seats). No database is used here.

One owner's jobs with the same requirement form a queue, ordered by priority and age. The queues take turns: first the owner with
the fewest running jobs, then the one with the least recent device time. A queue that got nothing for long goes first, so that no
owner starves.
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
    """A device or host that runs one job at a time. `affinity` is the file key of its last job, `rested_s` its idle seconds."""

    name: str
    serves: frozenset[str]
    rested_s: float = math.inf
    affinity: str = ""


@dataclass(frozen=True, kw_only=True)
class JobLine:
    """The first jobs of one owner's queue for one requirement. `served_at` is the time when the queue's last job was started."""

    owner: str
    needs: str
    jobs: Sequence[Job]
    served_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """An owner's current use of the farm: the number of running jobs, and recent device time in seconds."""

    running: int = 0
    device_s: float = 0.0


def assigned(
    seats: Sequence[Seat], lines: Sequence[JobLine], usage: Mapping[str, Usage], now: datetime
) -> list[tuple[Job, Seat]]:
    """Assign jobs to seats (devices or hosts) until no job fits. Each seat and each job is used at most once.

    While jobs are assigned, a queue's turn can only become later. So an outdated turn is pushed back into the heap, and the
    others need no update.
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
    """The state while jobs are assigned to seats (devices or hosts): the jobs and the seats that are still unmatched."""

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
        """Return a queue's sort key, or None if no job in it can be assigned. The smallest key's queue gets the next device."""
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
        """Assign the next job of a queue to the free device or host (seat) that suits it best. Return the job and the seat."""
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
        """Return the index of a queue's next job: the oldest, or a slightly newer one if a free device already has its files."""
        jobs = self._jobs[number]
        at_hand, latest = _affinities(self._free[self._lines[number].needs]), jobs[0].counts_from + _PATIENCE
        first = enumerate(islice(jobs, MOST_IN_LINE if at_hand else 0))
        return next((place for place, job in first if job.affinity in at_hand and job.counts_from <= latest), 0)

    def _suitability(self, job: Job, seat: Seat) -> tuple[bool, int, float]:
        """Rate how a device or host suits a job: best if it has the job's files, then by few rival queues, then by idle time."""
        return bool(job.affinity) and seat.affinity == job.affinity, -self._rivals[seat.name], seat.rested_s


def _affinities(seats: Mapping[str, Seat]) -> set[str]:
    return {seat.affinity for seat in seats.values()} - {""}
