"""Claims in a database: an empty one, as a file's path or a URL -> what a claim and the end of a job take while many jobs wait.

    python bench/claims.py SOURCE [--jobs 1000 10000 100000]

One worker with one phone asks again and again, and what it gets is finished at once. Jobs of up to 6 owners wait, nine in ten for
any phone of one of 20 models, the others for one of 500 phones by name.
"""

import argparse
import time
from statistics import median

from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.jobs import JobQueue
from quadbench.farm.need import device_need, needs_served, wish_need
from quadbench.farm.scheduler import Seat
from quadbench.farm.selection import Wish
from quadbench.results.engine import open_engine

OWNERS, MODELS, PHONES, BATCH, CLAIMS = 6, 20, 500, 1000, 60


def new_job(number: int) -> NewJob:
    model = Wish(word="", key=None, value=f"m{number % MODELS}", count=1)
    needs = wish_need(model) if number % 10 else device_need(f"p{number % PHONES}")
    return NewJob(kind=JobKind.MEASURE, needs=needs, affinity=f"b{number % 7}")


def seat(number: int) -> Seat:
    labels = {"name": f"p{number}", "profile": f"m{number % MODELS}", "chip": "c", "host": "h"}
    return Seat(name=f"p{number}", serves=needs_served(f"p{number}", labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="an empty database: a file's path or postgresql://HOST/NAME")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    engine = open_engine(options.source)
    queue, batches = JobQueue(engine), 0
    print("| jobs that wait | claim | slowest | finish | jobs submitted a second |\n|---|---|---|---|---|")  # noqa: T201
    for jobs in options.jobs:
        began, before = time.perf_counter(), batches
        while batches * BATCH < jobs:
            queue.submit(f"run-{batches}", [new_job(number) for number in range(BATCH)], f"owner-{batches % OWNERS}", "1")
            batches += 1
        rate = (batches - before) * BATCH / (time.perf_counter() - began)
        claims_s, ends_s = [], []
        for number in range(CLAIMS):
            began = time.perf_counter()
            attempts = queue.claim("worker", "1", [seat(number)])
            claims_s.append(time.perf_counter() - began)
            for attempt in attempts:
                began = time.perf_counter()
                queue.finish(attempt)
                ends_s.append(time.perf_counter() - began)
        cells = (median(claims_s), max(claims_s), median(ends_s))
        print(f"| {jobs:,} | {' | '.join(f'{1e3 * cell:.0f} ms' for cell in cells)} | {rate:,.0f} |", flush=True)  # noqa: T201
    engine.dispose()


if __name__ == "__main__":
    main()
