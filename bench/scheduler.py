"""The farm's scheduler in simulated time: hosts, devices, owners and jobs -> decisions a second, fairness, growth and memory.

    python bench/scheduler.py [--hosts 1000] [--devices 10] [--owners 6] [--jobs 10000 100000 1000000]

Hosts ask whenever a seat of theirs is free, as workers do. The owners submit runs of equal size during the first tenth of the
time that the work takes: one job in a hundred compiles on a host, the others wait for it and measure on a device, most of them on
any phone of a model, some on any with a chip, some on one by name. What a table of the database does with its indexes is done in
memory here, and Python's collector of garbage, which would go through all of it again and again, is off, so that the figures are
those of the decisions. Fairness is counted for as long as every owner has jobs that wait.
"""

import argparse
import gc
import heapq
import math
import random
import resource
import time
from bisect import insort
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from quadbench.farm.job import Job, JobKind, claimed, finished
from quadbench.farm.need import capability_need, device_need, needs_served, wish_need
from quadbench.farm.scheduler import MOST_IN_LINE, JobLine, Seat, Usage, assigned
from quadbench.farm.selection import Wish

START = datetime(2026, 1, 1, tzinfo=UTC)
MODELS, CHIPS, BUNDLES = 20, 8, 10
RUN = 100  # jobs
COMPILE = capability_need("compile")
COLUMNS = (
    "jobs",
    "decisions a second of CPU",
    "µs each",
    "jobs looked at for each",
    "greatest / least",
    "Jain",
    "switches",
    "simulated",
    "wall",
    "peak memory",
)
LATEST = 256  # attempts that ended, as the table counts


@dataclass(kw_only=True)
class Row:
    """A line of the queue: its first jobs sorted, the others in a heap."""

    head: list[tuple[datetime, int, Job]] = field(default_factory=list)
    rest: list[tuple[datetime, int, Job]] = field(default_factory=list)
    served_at: datetime | None = None

    def add(self, job: Job) -> None:
        entry = (job.counts_from, job.id, job)
        if self.rest and entry > self.rest[0]:
            heapq.heappush(self.rest, entry)
        else:
            insort(self.head, entry)
            if len(self.head) > 2 * MOST_IN_LINE:
                heapq.heappush(self.rest, self.head.pop())

    def first(self) -> list[Job]:
        while self.rest and len(self.head) < MOST_IN_LINE:
            self.head.append(heapq.heappop(self.rest))
        return [job for _, _, job in self.head[:MOST_IN_LINE]]

    def remove(self, job: Job) -> None:
        self.head.remove((job.counts_from, job.id, job))


@dataclass(kw_only=True)
class Figures:
    """The figures of one simulation."""

    jobs: int
    decisions: int = 0
    decision_s: float = 0.0
    looked_at: int = 0  # jobs, in all lines of all questions
    simulated_s: float = 0.0
    switches: int = 0
    measured: int = 0
    device_s: Counter[str] = field(default_factory=Counter)  # while all owners have jobs that wait

    @property
    def jain(self) -> float:
        """Jain's index of the owners' device time: 1 where all have the same."""
        times = list(self.device_s.values())
        return sum(times) ** 2 / (len(times) * sum(value * value for value in times)) if times else math.nan

    @property
    def spread(self) -> float:
        """The greatest device time over the least."""
        return max(self.device_s.values()) / min(self.device_s.values()) if self.device_s else math.nan


class Farm:
    """A simulated farm. Its events are runs that are submitted and jobs that end."""

    def __init__(self, hosts: int, devices: int, owners: int, jobs: int) -> None:
        self.random = random.Random(jobs)
        self.figures = Figures(jobs=jobs)
        self.owners = [f"owner-{number}" for number in range(owners)]
        self.seats = {host: list(self._seats_of(host, devices)) for host in range(hosts)}
        self.names = [seat.name for seats in self.seats.values() for seat in seats if COMPILE not in seat.serves]
        self.free = {host: {seat.name: seat for seat in seats} for host, seats in self.seats.items()}
        self.ended_at: dict[str, datetime] = {}
        self.queue: dict[str, dict[str, Row]] = defaultdict(dict)
        self.waiting, self.running = Counter[str](), Counter[str]()
        self.lately: deque[tuple[str, float]] = deque()
        self.lately_s = Counter[str]()
        self.behind: dict[int, list[Job]] = {}
        self.events: list[tuple[float, int, object]] = []
        self.number = 0
        runs = max(jobs // RUN, 1)
        period_s = 0.1 * jobs * 40.0 / (hosts * devices)
        for run in range(runs):
            self.push(period_s * run / runs, (self.owners[run % owners], run))

    def _seats_of(self, host: int, devices: int) -> Iterator[Seat]:
        yield Seat(name=f"host-{host}", serves=frozenset({COMPILE}))
        for number in range(devices):
            name = f"phone-{host}-{number}"
            model = self.random.randrange(MODELS)
            labels = {"name": name, "profile": f"m{model}", "chip": f"c{model % CHIPS}", "host": f"host-{host}"}
            yield Seat(name=name, serves=needs_served(name, labels))

    def push(self, at_s: float, event: object) -> None:
        self.number += 1
        heapq.heappush(self.events, (at_s, self.number, event))

    def run(self) -> Figures:
        while self.events:
            at_s, _, event = heapq.heappop(self.events)
            now = START + timedelta(seconds=at_s)
            self.figures.simulated_s = at_s
            match event:
                case (str() as owner, int() as run):
                    self.submit(owner, run, now)
                    host = run % len(self.seats)
                case (int() as host, Seat() as seat, Job() as job):
                    self.end(host, seat, job, now)
            self.ask(host, now)
            if self.is_quiet():
                for other in self.seats:  # as workers do that ask now and then
                    self.ask(other, now)
        assert not any(self.waiting.values())
        assert not any(self.running.values())
        assert self.figures.decisions == self.figures.jobs
        return self.figures

    def is_quiet(self) -> bool:
        """Say whether seats may be free for jobs that only other hosts' questions would find."""
        return self.number % 500 == 0 or not self.events

    def submit(self, owner: str, run: int, now: datetime) -> None:
        bundle, first = f"{owner}-b{self.random.randrange(BUNDLES)}", run * RUN + 1
        common = {"run_id": f"run-{run}", "version": "1", "owner": owner, "submitted_at": now}
        self.add(Job(id=first, kind=JobKind.COMPILE, needs=COMPILE, **common))
        model = self.random.randrange(MODELS)
        self.behind[first] = [
            Job(
                id=first + i, kind=JobKind.MEASURE, needs=self.need(model), after=(first,), affinity=f"{bundle}-{model}", **common
            )
            for i in range(1, min(RUN, self.figures.jobs))
        ]

    def need(self, model: int) -> str:
        kind = self.random.random()
        if kind < 0.1:
            return device_need(self.random.choice(self.names))
        key, value = ("chip", f"c{model % CHIPS}") if kind < 0.3 else (None, f"m{model}")
        return wish_need(Wish(word="", key=key, value=value, count=1))

    def add(self, job: Job) -> None:
        self.queue[job.needs].setdefault(job.owner, Row()).add(job)
        self.waiting[job.owner] += 1

    def ask(self, host: int, now: datetime) -> None:
        free = self.free[host]
        if not free:
            return
        seats = [replace(seat, rested_s=self.rested_s(seat, now)) for seat in free.values()]
        began = time.process_time()  # as other processes have the machine too
        lines = [
            JobLine(owner=owner, needs=need, jobs=row.first(), served_at=row.served_at)
            for need in {need for seat in seats for need in seat.serves} & self.queue.keys()
            for owner, row in self.queue[need].items()
            if row.head or row.rest
        ]
        given = assigned(seats, lines, self.usage(), now) if lines else []
        self.figures.decision_s += time.process_time() - began
        self.figures.looked_at += sum(len(line.jobs) for line in lines)
        for job, seat in given:
            self.begin(host, job, seat, now)

    def rested_s(self, seat: Seat, now: datetime) -> float:
        ended_at = self.ended_at.get(seat.name)
        return (now - ended_at).total_seconds() if ended_at else math.inf

    def usage(self) -> dict[str, Usage]:
        return {owner: Usage(running=self.running[owner], device_s=self.lately_s[owner]) for owner in self.owners}

    def begin(self, host: int, job: Job, seat: Seat, now: datetime) -> None:
        del self.free[host][seat.name]
        row = self.queue[job.needs][job.owner]
        row.remove(job)
        row.served_at = now
        self.waiting[job.owner] -= 1
        self.running[job.owner] += 1
        self.figures.decisions += 1
        if job.affinity:
            self.figures.measured += 1
            self.figures.switches += seat.affinity != job.affinity
        duration_s = self.random.uniform(20.0, 60.0)
        attempt = claimed(job, f"host-{host}", seat.name, now, 120.0)
        self.push((now - START).total_seconds() + duration_s, (host, seat, attempt))

    def end(self, host: int, seat: Seat, job: Job, now: datetime) -> None:
        ended = finished(job, now)
        seconds = (now - (ended.started_at or now)).total_seconds()
        self.running[job.owner] -= 1
        self.lately.append((job.owner, seconds))
        self.lately_s[job.owner] += seconds
        if len(self.lately) > LATEST:
            owner, oldest_s = self.lately.popleft()
            self.lately_s[owner] -= oldest_s
        self.ended_at[seat.name] = now
        self.free[host][seat.name] = replace(seat, affinity=job.affinity or seat.affinity)
        for behind in self.behind.pop(job.id, []):
            self.add(behind)
        if all(self.waiting[owner] for owner in self.owners):
            self.figures.device_s[job.owner] += seconds


def growth(figures: list[Figures]) -> float:
    """Return the power of jobs with which the time of all decisions grows: the slope of a line through the logarithms."""
    points = [(math.log(one.jobs), math.log(one.decision_s)) for one in figures]
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--devices", type=int, default=10, help="of each host")
    parser.add_argument("--owners", type=int, default=6)
    parser.add_argument("--jobs", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    gc.disable()
    print(f"| {' | '.join(COLUMNS)} |")  # noqa: T201
    print("|---" * len(COLUMNS) + "|")  # noqa: T201
    all_figures = []
    for jobs in options.jobs:
        began = time.perf_counter()
        one = Farm(options.hosts, options.devices, options.owners, jobs).run()
        all_figures.append(one)
        cells = (
            f"{jobs:,}",
            f"{one.decisions / one.decision_s:,.0f}",
            f"{1e6 * one.decision_s / one.decisions:.0f}",
            f"{one.looked_at / one.decisions:.1f}",
            f"{one.spread:.3f}",
            f"{one.jain:.5f}",
            f"{one.switches / max(one.measured, 1):.1%}",
            f"{one.simulated_s / 3600:.2f} h",
            f"{time.perf_counter() - began:.0f} s",
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB",
        )
        print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201
    if len(all_figures) > 1:
        print(f"\ntime of all decisions grows with jobs to the power of {growth(all_figures):.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
