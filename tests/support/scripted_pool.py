"""A pool without daemons: slots that a test describes, a queue in memory. It speaks as HTCondor's tools do, by ads."""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

from quadbench.cli import farm, farm_pool
from quadbench.dispatch import submission
from quadbench.errors import QuadbenchError
from quadbench.farm import pool_check
from quadbench.farm.condor import Ad, Condor
from quadbench.farm.slots import Bay, Bays, needs_served

NOWHERE = Path("/nowhere/condor_config")
INSTALLED = version("quadbench")


@dataclass(frozen=True, kw_only=True)
class ScriptedPool(Condor):
    """A pool whose slots are those of `hosts`: a dict from host name to its bays. `runs` are the runs in its queue.

    `unstarted` are the run and id of the jobs there that no slot runs; `draining` are the hosts that take no more jobs.
    `changes` are attributes of slots by their device, in place of those that their host describes. `broken` are the errors of
    methods by name. `ran` are the tools that would have been run. Each host has `room` slots, or one more than it has devices.
    """

    configuration: Path = NOWHERE
    hosts: dict[str, list[Bay]] = field(default_factory=dict)
    version: str = INSTALLED
    runs: set[str] = field(default_factory=set)
    unstarted: set[tuple[str, int]] = field(default_factory=set)
    draining: set[str] = field(default_factory=set)
    removed: list[str] = field(default_factory=list)
    dags: list[str] = field(default_factory=list)
    changes: dict[str, dict[str, object]] = field(default_factory=dict)
    broken: dict[str, QuadbenchError] = field(default_factory=dict)
    ran: list[tuple[str, ...]] = field(default_factory=list)
    room: int | None = None

    def slots(self, *attributes: str, constraint: str = "") -> list[Ad]:
        self._work("slots")
        ads = list[Ad]()
        for host, bays in self.hosts.items():
            text = Bays(self.room or len(bays) + 1).ads(bays, self.version)
            for number, ad in enumerate(map(_read, text.split("\n- ")), 1):
                if device := ad.get("SlotDevice"):
                    state = {"Activity": "Retiring"} if host in self.draining else {}
                    own = {"Machine": host, "Name": f"slot{number}@{host}", **state}
                    ads.append({**own, **ad, **self.changes.get(str(device), {})})
        return ads

    def schedd(self) -> Ad:
        self._work("schedd")
        return {
            "Name": "quadbench@",
            "Machine": "head",
            "CondorVersion": "$CondorVersion: 23.9.6 $",
            "QuadbenchConfiguration": "/head/condor_config",
        }

    def owners(self) -> list[Ad]:
        self._work("owners")
        return [{"Name": "ana@quadbench", "ResourcesUsed": 1, "WeightedAccumulatedUsage": 7200.0, "Priority": 500.0}]

    def queue(self, *attributes: str, constraint: str = "") -> list[Ad]:
        self._work("queue")
        dags: list[Ad] = [{"QuadbenchRun": run, "ClusterId": number} for number, run in enumerate(sorted(self.runs), 1)]
        return dags + [{"QuadbenchRun": run, "QuadbenchJob": job, "JobStatus": 1} for run, job in sorted(self.unstarted)]

    def submit(self, folder: Path, description: str) -> None:
        self._work("submit")
        self.dags.append((folder / "run.dag").read_text())
        self.runs.add((folder / description).read_text().split('My.QuadbenchRun = "')[1].split('"')[0])

    def remove(self, constraint: str, reason: str) -> None:
        self._work("remove")
        self.removed.append(constraint)

    def run(self, tool: str, *words: str, folder: Path | None = None, as_host: bool = False) -> str:
        self._work("run")
        self.ran.append((tool, *words))
        return "Remote Mapping: ana@quadbench\n" if tool == "condor_ping" else ""

    def value(self, name: str) -> str:
        return str(self.configuration.parent / "tokens.d")

    def _work(self, method: str) -> None:
        if error := self.broken.get(method):
            raise error


def use_pool(pool: Condor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the commands of `farm`, and submissions, use this pool."""
    for module in (farm, farm_pool, submission, pool_check):
        monkeypatch.setattr(module, "this_pool", lambda: pool)


def pool_with_token(folder: Path, bays: Iterable[Bay] = (), host: str = "lab-1", version: str = INSTALLED) -> ScriptedPool:
    """Return a pool with one host, in whose folder lies a token of the user."""
    (folder / "tokens.d").mkdir(parents=True)
    (folder / "tokens.d" / "ana").write_text("a.b.c")
    return ScriptedPool(configuration=folder / "condor_config", hosts={host: list(bays)}, version=version)


def token(**claims: object) -> str:
    """Return a token as HTCondor makes it, with a signature that nobody checks here."""
    content = {"sub": "ana@quadbench", "iss": "quadbench", "iat": 1, **claims}
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "HS256"}, content)
    )
    return f"{head}.{body}.c2lnbmF0dXJl\n"


def phone(serial: str, **labels: str) -> Bay:
    """Return the bay of an attached phone."""
    known = {"name": f"s25@{serial}", "serial": serial, "profile": "s25", **labels}
    return Bay(name=serial, address=f"s25@{serial}", serves=needs_served(serial, known), labels=known)


def _read(text: str) -> dict[str, object]:
    """Read an ad as startd cron jobs print it."""
    ad: dict[str, object] = {}
    for name, equals, value in (line.partition(" = ") for line in text.splitlines()):
        if equals and value != "undefined":
            text = value[1:-1].replace('\\"', '"')
            ad[name] = {"true": True, "false": False}.get(value, text if value.startswith('"') else value)
            if isinstance(ad[name], str) and str(ad[name]).isdigit() and not value.startswith('"'):
                ad[name] = int(value)
    return ad
