"""Simulated phones, waiting jobs and running jobs in HTCondor's daemons -> memory, time and CPU, to judge a farm of many phones.

    python bench/pool_scale.py --out pool_scale.jsonl match --slots 1000 10000 --jobs 10000
    python bench/pool_scale.py --out pool_scale.jsonl match --slots 10000 --free 100 --jobs 10000 --needs one mixed named
    python bench/pool_scale.py --out pool_scale.jsonl dags --jobs 64
    python bench/pool_scale.py --out pool_scale.jsonl wide --jobs 3000
    python bench/pool_scale.py --out pool_scale.jsonl running --slots 8 64

A cell has a pool of its own, with the head's settings of `quadbench farm init`; its line is printed and appended to the file.
`match`: jobs wait in the queue, the ads of slots come from condor_advertise, and the negotiator matches both. These slots want
no claim, as condor_advertise cannot send one: a match counts for the negotiator, and no job starts. Jobs need any device (`one`),
any or one of three chips (`mixed`), or each tenth a device by its serial besides (`named`). `dags`: runs of three jobs, one after
another, that no slot serves, each with its DAGMan. `wide`: one run of so many independent jobs. `running`: jobs that sleep, at
real slots of this machine.
"""

import argparse
import itertools
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine import MOST_OTHERS, others_busy, others_runnable  # it also puts tests/ on the path
from support.condor_attempts import VERSION, OwnersPool, farm_need, pool_settings, scripted_bays
from support.condor_pool import CondorPool, Process, running_pool
from support.device_stays import need_of

from quadbench.farm.dag import dag_text, submit_dag
from quadbench.farm.job import Job, JobKind
from quadbench.farm.slots import START, Bays, device_need, encoded, read_slots, requirement

OWNER, EACH_HOST, BATCH = "ann", 16, 20_000  # HTCondor takes so many jobs of one submission
ROUNDS = 10  # jobs of a slot when starts are counted
_PATIENCE_S, _SHORT_S, _IDLE_S = 480.0, 5.0, 30.0
_NOBODY_LISTENS = '"<127.0.0.1:9>"'
_OF_THE_COLLECTOR = "LastHeardFrom", "AddressV1", "AuthenticatedIdentity", "AuthenticationMethod"
_ALONE = {
    "NEGOTIATOR_INTERVAL": "3600",  # the negotiator begins when it is told to
    "NEGOTIATOR_UPDATE_AFTER_CYCLE": "True",
    "MAX_JOBS_PER_OWNER": "1000000",
    "DAGMAN_MAX_JOBS_IDLE": "1000000",  # a run submits all its jobs
    "STARTD_CRON_JOBLIST": "",
    "ALLOW_ADVERTISE_STARTD": "*@$(POOL_DOMAIN)",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A simulation, such as `match`. Slots that are not free are claimed, and run jobs of others."""

    kind: str
    slots: int
    free: int
    jobs: int
    needs: str


def main() -> None:
    """Run the cells of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=("match", "dags", "wide", "running"))
    parser.add_argument("--slots", type=int, nargs="+", default=[64])
    parser.add_argument("--jobs", type=int, nargs="+", default=[0], help="waiting jobs; with `dags`: runs of three jobs")
    parser.add_argument("--free", type=int, help="so many slots are not claimed (default: all)")
    parser.add_argument("--needs", choices=("one", "mixed", "named"), nargs="+", default=["mixed"], help="what jobs want")
    parser.add_argument("--out", type=Path, required=True, help="file of results, to which a line is added for each cell")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run that is cut off takes its pool along
    for slots, jobs, needs in itertools.product(options.slots, options.jobs, options.needs):
        free = slots if options.free is None else options.free
        cell = Cell(kind=options.kind, slots=slots, free=free, jobs=jobs, needs=needs)
        line = json.dumps({"cell": asdict(cell), **measured(cell)})
        print(line, flush=True)  # noqa: T201
        with options.out.open("a") as out:
            out.write(line + "\n")


def measured(cell: Cell) -> dict[str, Any]:
    """Run a cell in a new pool, and return its figures and the load meanwhile."""
    run = {"match": match, "dags": dags, "wide": wide, "running": running}[cell.kind]
    load = {"at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}", "load_average_before": os.getloadavg()[0]}
    load["others_before"] = others_runnable()
    count = cell.slots if cell.kind == "running" else 1
    others = others_busy()
    with tempfile.TemporaryDirectory(prefix="quadbench-scale-") as name:
        folder = Path(name) / "pool"
        settings = pool_settings(folder, count, "scale") | _ALONE
        if cell.kind == "running":
            settings |= {"START": "True", "NEGOTIATOR_INTERVAL": "5"}  # the interval is a farm's
        with running_pool(folder, slots=[{}] * count, claim_life_s=_PATIENCE_S, settings=settings) as pool:
            figures = run(cell, pool)
        busy = others()
    return {"valid": busy <= MOST_OTHERS, **load, "others_during": round(busy, 2), **figures}


def match(cell: Cell, pool: CondorPool) -> dict[str, Any]:
    """Queue jobs, ask for them, advertise slots, ask for those, and let the negotiator match all of them once."""
    condor = OwnersPool(configuration=pool.folder / "condor_config", pool=pool, owner=OWNER)
    before = memory(daemon(pool, "condor_schedd"))
    with timed(pool, "condor_schedd") as submission:
        for first in range(0, cell.jobs, BATCH):
            pool.submit(description(cell, range(first, min(first + BATCH, cell.jobs))), OWNER)
    figures: dict[str, Any] = {"submission": submission, "schedd_before": before}
    figures["schedd"] = memory(daemon(pool, "condor_schedd"))
    with timed(pool, "condor_schedd") as figures["settle"]:  # what a run that waits asks every 20 s
        condor.queued_runs()
    figures["collector_before"] = memory(daemon(pool, "condor_collector"))
    ads = pool.folder / "ads"
    template = pool.tool("condor_status", "-long").partition("\n\n")[0]
    ads.write_text(slot_ads(cell, template))
    figures["ad_bytes"] = ads.stat().st_size // cell.slots
    for name in ("first_ads", "later_ads"):
        with timed(pool, "condor_collector") as figures[name]:
            pool.tool("condor_advertise", "-tcp", "-multiple", "UPDATE_STARTD_AD", str(ads))
            wait_until(lambda: len(pool.slots("Name")) == cell.slots + 1)
    figures["collector"] = memory(daemon(pool, "condor_collector"))
    with timed(pool, "condor_collector") as figures["read_slots"]:
        figures["slots_read"] = len(read_slots(condor))
    with timed(pool, "condor_schedd") as figures["farm_status"]:  # as `quadbench farm status` asks
        condor.queued_runs()
        read_slots(condor)
        condor.owners()
    with timed(pool, "condor_schedd") as figures["schedd_in_cycle"]:
        pool.tool("condor_reschedule", owner=OWNER)
        figures["cycle"] = cycle(pool, cell)
    figures["negotiator"] = memory(daemon(pool, "condor_negotiator"))
    figures["autoclusters"] = json.loads(pool.tool("condor_status", "-schedd", "-json"))[0].get("Autoclusters")
    return figures


def dags(cell: Cell, pool: CondorPool) -> dict[str, Any]:
    """Submit runs of three jobs, of which one waits for a slot and the others for it, and weigh their DAGMans."""
    return of_runs(pool, [[run_job(3 * run + place, run, place) for place in range(3)] for run in range(cell.jobs)], cell.jobs)


def wide(cell: Cell, pool: CondorPool) -> dict[str, Any]:
    """Submit one run of independent jobs, and see how long its DAGMan takes to queue all of them."""
    return of_runs(pool, [[run_job(number, 0, 0) for number in range(cell.jobs)]], cell.jobs)


def of_runs(pool: CondorPool, runs: list[list[Job]], waiting: int) -> dict[str, Any]:
    condor = OwnersPool(configuration=pool.folder / "condor_config", pool=pool, owner=OWNER)
    before = memory(daemon(pool, "condor_schedd"))
    with timed(pool, "condor_schedd") as submission:
        for jobs in runs:
            submit_dag(condor, jobs[0].run_id, jobs)
    with timed(pool, "condor_schedd") as queueing:
        wait_until(lambda: len(condor.queue("ClusterId", constraint="QuadbenchJob =!= undefined")) == waiting)
    dagmans = dagmans_of(pool)
    time.sleep(_IDLE_S)
    before_s, after_s = (sum(process.cpu_s for process in some) for some in (dagmans, dagmans_of(pool)))
    return {
        "submission": submission,
        "queueing": queueing,
        "schedd_before": before,
        "schedd": memory(daemon(pool, "condor_schedd")),
        "dagman": means(list(map(memory, dagmans))),
        "dagman_cpu_s": round(before_s, 2),
        "dagman_idle_cpu_ms_a_second": round(1000 * (after_s - before_s) / _IDLE_S / len(dagmans), 3),
    }


def running(cell: Cell, pool: CondorPool) -> dict[str, Any]:
    """Weigh the shadows and starters of jobs at all slots, then count how many starts a second short jobs get."""
    pool.submit(sleep_job(_PATIENCE_S, cell.slots), OWNER)
    wait_until(lambda: sum(process.name == "condor_starter" for process in pool.daemons()) == cell.slots)
    time.sleep(10)
    figures: dict[str, Any] = {
        name: means([memory(process) for process in pool.daemons() if process.name == f"condor_{name}"])
        for name in ("shadow", "starter", "schedd", "startd")
    }
    pool.tool("condor_rm", "-constraint", "true", owner=OWNER)
    wait_until(lambda: not pool.jobs("ClusterId"))
    jobs = ROUNDS * cell.slots
    before = {name: daemon(pool, f"condor_{name}").cpu_s for name in ("schedd", "startd", "collector", "negotiator")}
    schedd = daemon(pool, "condor_schedd").pid
    own_s = own_cpu_s(schedd)
    pool.submit(sleep_job(_SHORT_S, jobs), OWNER)
    wait_until(lambda: not pool.jobs("ClusterId"))
    starts = sorted(ad["JobStartDate"] for ad in pool.history("JobStartDate", "ExitCode") if ad.get("ExitCode") == 0)
    figures["cpu_ms_a_job"] = {  # with that of ended shadows and starters
        name: round(1000 * (daemon(pool, f"condor_{name}").cpu_s - cpu_s) / jobs, 1) for name, cpu_s in before.items()
    }
    figures["schedd_alone_ms_a_job"] = round(1000 * (own_cpu_s(schedd) - own_s) / jobs, 1)
    span_s = max(1, starts[-1] - starts[0])
    return figures | {"started": len(starts), "starts_a_second": round(len(starts) / span_s, 2)}


def description(cell: Cell, numbers: range) -> str:
    """Return a submit description of jobs as nodes of a run have it, in one cluster. Three jobs are a run."""
    names = "job", "run", "need", "owner", "loads", "urgency", "lease", "requirement"
    rows = []
    for number in numbers:
        wish = need_of(number, cell.slots) if cell.needs != "one" else {}
        need = farm_need({} if "PhoneSerial" in wish and cell.needs != "named" else wish)
        values = number, f"scale-{number // 3}", encoded(need), OWNER, "bundle", 0, 120, requirement(need, VERSION)
        rows.append(", ".join(map(str, values)))
    settings = dag_text([]).partition("{\n")[2].rpartition("}")[0]
    return "\n".join([f"{settings}queue {', '.join(names)} from (", *rows, ")", ""])


def run_job(number: int, run: int, place: int) -> Job:
    return Job(
        id=number,
        run_id=f"scale-{run}",
        version=VERSION,
        kind=JobKind.MEASURE,
        needs=device_need("nobody has it"),
        owner=OWNER,
        submitted_at=datetime.now(UTC),
        after=(number - 1,) if place else (),
    )


def sleep_job(seconds: float, count: int) -> str:
    settings = {"executable": "/bin/sleep", "arguments": f"{seconds:g}", "transfer_executable": "False"}
    settings |= {"should_transfer_files": "YES", "transfer_output_files": '""', "request_memory": "1", "request_disk": "1"}
    return "".join(f"{name} = {value}\n" for name, value in settings.items()) + f"queue {count}\n"


def slot_ads(cell: Cell, template: str) -> str:
    """Return the ads of a cell's slots, 16 on a host, with the attributes of a real startd's ad and those of quadbench."""
    bays, ads = scripted_bays(cell.slots), list[str]()
    for first in range(0, cell.slots, EACH_HOST):
        host, some = f"host{first // EACH_HOST}", bays[first : first + EACH_HOST]
        described = re.split(r"^- slot\d+\n", Bays(len(some)).ads(some, VERSION, host), flags=re.MULTILINE)[:-1]
        for number, own in enumerate(described, 1):
            values = dict(line.split(" = ", 1) for line in (template + "\n" + own).splitlines() if " = " in line)
            values |= {"Name": f'"slot{number}@{host}"', "Machine": f'"{host}"', "Start": START, "Requirements": "START"}
            values |= {"MyAddress": _NOBODY_LISTENS, "StartdIpAddr": _NOBODY_LISTENS, "WantClaiming": "false"}
            values["SlotSeen"] = str(int(time.time()) + 3600)  # so that they stay fresh
            if len(ads) >= cell.free:
                values |= {"State": '"Claimed"', "Activity": '"Busy"', "RemoteOwner": '"ben@farm"'}
            ads.append("".join(f"{key} = {value}\n" for key, value in values.items() if key not in _OF_THE_COLLECTOR))
    return "\n".join(ads)


def cycle(pool: CondorPool, cell: Cell) -> dict[str, Any]:
    """Wait for the first negotiation with all slots, and return what the negotiator says of it."""
    prefix, found = "LastNegotiationCycle", dict[str, Any]()

    def is_over() -> bool:
        ad = json.loads(pool.tool("condor_status", "-negotiator", "-json"))[0]
        for number in [number for number in range(3) if ad.get(f"{prefix}TotalSlots{number}", 0) > cell.slots][-1:]:
            keys = [key for key in ad if key.startswith(prefix) and key.endswith(str(number))]
            found.update({key.removeprefix(prefix)[:-1]: ad[key] for key in keys})
        return bool(found)

    wait_until(is_over)
    return found


@contextmanager
def timed(pool: CondorPool, name: str) -> Iterator[dict[str, float]]:
    """Yield a dict that gets the seconds of the `with` block, and the CPU seconds of a daemon and its ended children in it."""
    cpu_s, began, figures = daemon(pool, name).cpu_s, time.monotonic(), dict[str, float]()
    yield figures
    figures |= {"s": round(time.monotonic() - began, 2), "cpu_s": round(daemon(pool, name).cpu_s - cpu_s, 2)}


def daemon(pool: CondorPool, name: str) -> Process:
    """Return the daemon of a name; its forks for queries have the same one, and higher ids."""
    return min((process for process in pool.daemons() if process.name == name), key=lambda process: process.pid)


def dagmans_of(pool: CondorPool) -> list[Process]:
    return [process for process in pool.daemons() if process.name.startswith("condor_scheduniv_exec")]  # the schedd's name


def own_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process without those of ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def memory(process: Process) -> dict[str, float]:
    """Return a process's memory in MiB: resident, with shared pages divided among their users, and its own alone."""
    lines = (line.split() for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:])
    kib = {words[0].rstrip(":"): int(words[1]) for words in lines}
    own = kib["Private_Clean"] + kib["Private_Dirty"]
    return {name: round(value / 1024, 2) for name, value in (("rss", kib["Rss"]), ("pss", kib["Pss"]), ("uss", own))}


def means(every: list[dict[str, float]]) -> dict[str, float]:
    """Return how many there are, and the mean of each figure."""
    keys = every[0] if every else ()
    return {"count": len(every), **{key: round(sum(one[key] for one in every) / len(every), 2) for key in keys}}


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            sys.exit("the pool does not come to it in time")
        time.sleep(1)


if __name__ == "__main__":
    main()
