"""A host's devices as HTCondor slots: the ad of a slot says which device it has, and which jobs it may start.

A host has a fixed number of slots. Its program `quadbench farm host`, a startd cron job, prints an ad for each slot every few
seconds. A device keeps its slot while the program runs. A job has one requirement, such as `device NAME`, and runs at any slot
whose ad lists it.
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as percent_encoded
from urllib.parse import unquote

from quadbench.artifacts.safe_text import MAX_CHARACTERS, one_line
from quadbench.farm.condor import Ad, Condor, quoted
from quadbench.farm.job import Job, JobState

SILENT_S = 120
"""A slot whose ad is older than this starts no job: the program that describes it has ended or hangs."""

LONGEST_REST_S = 1e9  # also of a device that had no job yet
USED_BY = "used by "  # begins the reason of a device that is in use outside of the farm
_SILENT = "its host has not described it lately"
_MOST_LABELS, _LONGEST_LABEL, _MOST_NEEDS = 100, 200, 1000

if TYPE_CHECKING:
    from quadbench.devices.lab.selection import Wish

_CAPABILITY = "capability "
_MOST_NEEDED = 5  # jobs that are named

log = logging.getLogger(__name__)
AdValue = str | int | float | bool | None

START = (
    f"SlotReady =?= True && time() - SlotSeen < {SILENT_S} && stringListMember(TARGET.QuadbenchNeed, SlotServes)"
    " && (SlotReservedBy =?= undefined || SlotReservedBy =?= TARGET.QuadbenchOwner)"
)
"""The expression by which a slot starts a job. Ready means present, and not in quarantine."""

_READ = (
    *("Machine", "State", "Activity", "RemoteOwner", "QuadbenchVersion", "QuadbenchDatabase", "QuadbenchStore"),
    *("SlotDevice", "SlotSeen", "SlotReady", "SlotWhyNot", "SlotAddress", "SlotServes", "SlotReservedBy", "SlotLabels"),
    *("SlotLoaded", "SlotRestedS", "SlotProblem"),
)


@dataclass(frozen=True, kw_only=True)
class Bay:
    """A device, or a host's place for builds, that a slot serves. `serves` are the requirements of jobs that it meets.

    `name` is the device's name in leases. `loaded` is the key of the files of its last job, and `rested_s` the seconds since that
    job ended.
    """

    name: str
    address: str
    serves: frozenset[str]
    labels: Mapping[str, str] = field(default_factory=dict)
    why_not: str = ""
    reserved_by: str | None = None
    loaded: str = ""
    rested_s: float = 0.0

    @property
    def offers(self) -> tuple[str, ...]:
        """Return the device's address, or the capabilities of a place for builds. Return () if the device is gone."""
        capabilities = sorted(need.removeprefix(_CAPABILITY) for need in self.serves if need.startswith(_CAPABILITY))
        return (self.address,) if self.address else tuple(capabilities)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A slot of the pool. `state` is free, busy or draining; `used_by` is whose job it runs; `problem` is its host's, or "".

    `database` is the unique name of the database that its host uses, and `store` its store's name, each "" if not known.
    """

    host: str
    version: str
    state: str
    used_by: str | None
    bay: Bay
    problem: str = ""
    database: str = ""
    store: str = ""

    @property
    def is_present(self) -> bool:
        """Return True if the device is there and healthy. It may be in use, by a job of the farm or outside of it."""
        return not self.bay.why_not or self.bay.why_not.startswith(USED_BY)

    def serves(self, need: str, version: str) -> bool:
        """Return True if jobs with this requirement, submitted by this version of quadbench, may run at the slot some day."""
        return self.version == version and need in self.bay.serves

    def why_not_for(self, owner: str) -> str:
        """Return why the slot starts no job of `owner` now, or an empty text if it is free for it."""
        if self.bay.why_not:
            return self.bay.why_not
        if self.bay.reserved_by not in (None, owner):
            return f"reserved by {self.bay.reserved_by}"
        if self.state == "draining":
            return "its host drains"
        return f"busy with a job of {self.used_by}" if self.used_by else ""


class Bays:
    """The assignment of devices to the numbered slots of a host. A device that is gone keeps its number until others need it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._names: dict[int, str] = {}

    def ads(self, bays: Iterable[Bay], version: str, database: str = "", store: str = "") -> str:
        """Return the ads of all slots, in the form that startd cron jobs print. A slot without a device starts no job.

        `database` and `store` are the names of the host's database and store. If there are more devices
        than slots, the ads name those without one.
        """
        by_name = {bay.name: bay for bay in bays}
        new = sorted(by_name.keys() - set(self._names.values()))
        free = [number for number in range(1, self._count + 1) if self._names.get(number) not in by_name]
        free.sort(key=self._names.__contains__)  # slots that never had a device come first
        self._names.update(zip(free, new, strict=False))
        problem = None
        if left_out := new[len(free) :]:
            problem = one_line(f"it has {self._count} slots, and none is left for {', '.join(left_out)}")
            log.error("this host needs more slots: %s", problem)
        ads = []
        for number in range(1, self._count + 1):
            name = self._names.get(number, "")
            gone = Bay(name=name, address="", serves=frozenset(), why_not=f"{name} is gone" if name else "it has no device")
            host = {"QuadbenchVersion": one_line(version), "SlotProblem": problem}
            host |= {"QuadbenchDatabase": one_line(database) or None, "QuadbenchStore": one_line(store) or None}
            lines = {"SlotId": number, "SlotSeen": int(time.time()), **host, **_ad(by_name.get(name, gone))}
            ads.append("".join(f"{key} = {_literal(value)}\n" for key, value in lines.items()) + f"- slot{number}\n")
        return "".join(ads)


def capability_need(capability: str) -> str:
    """Return the requirement string `capability NAME` of a job that needs a host with the capability, such as `build`."""
    return f"{_CAPABILITY}{capability}"


def device_need(device: str) -> str:
    """Return the requirement string `device NAME` of a job for one particular device. NAME is an adb serial or `SERIAL@HOST`."""
    return f"device {device}"


def wish_need(wish: "Wish") -> str:
    """Return a requirement string such as `wish chip=sm8750`, for a job that any device with the wished label can run."""
    return _wished(wish.key or "", wish.value)


def needs_served(device: str, labels: Mapping[str, str]) -> frozenset[str]:
    """Return all requirement strings that a device meets. `device` is its name in leases; `labels` maps label keys to values."""
    from quadbench.devices.lab.selection import NAME_KEYS

    named = {_wished("", labels[key]) for key in NAME_KEYS if key in labels}
    return frozenset({device_need(device), *named, *(_wished(key, value) for key, value in labels.items())})


def _wished(key: str, value: str) -> str:
    return f"wish {key}={value.casefold()}"


def encoded(text: str) -> str:
    """Return a text without characters that have a meaning in lists, ClassAds or submit descriptions."""
    return percent_encoded(text, safe=":@", errors="replace")


def requirement(need: str, version: str) -> str:
    """Return the expression that selects the slots where a job with this requirement can run."""
    return f"stringListMember({quoted(encoded(need))}, TARGET.SlotServes) && TARGET.QuadbenchVersion =?= {quoted(version)}"


def read_slots(pool: Condor) -> list[Slot]:
    """Return the pool's slots that have, or had, a device or a place for builds. Slots with invalid ads are skipped."""
    slots = [slot for ad in pool.slots(*_READ, constraint="SlotDevice =!= undefined") if (slot := _slot(ad))]
    return sorted(slots, key=lambda slot: (slot.host, slot.bay.name))


def is_silent(slot: Slot) -> bool:
    """Return True if the slot's host has not described it lately."""
    return slot.bay.why_not == _SILENT


def why_not_started(job: Job, jobs: Sequence[Job], slots: Sequence[Slot]) -> str:
    """Return why a waiting job has not started: jobs that it needs are not done, or what the slots that fit are doing.

    `jobs` are the farm's latest jobs.
    """
    ended = {other.id for other in jobs if other.state is JobState.DONE}
    if needed := [str(other) for other in job.after if other not in ended]:
        return f"it needs job {', '.join(needed[:_MOST_NEEDED])}" + (" and more" if len(needed) > _MOST_NEEDED else "")
    return why_it_waits(job.needs, job.version, job.owner, slots)


def why_it_waits(need: str, version: str, owner: str, slots: Sequence[Slot]) -> str:
    """Return why no slot has started a job yet, by the slots' ads: none fits, or what those that fit are doing."""
    fitting = [slot for slot in slots if need in slot.bay.serves]
    if not fitting:
        return f"no slot of the pool serves '{need}'"
    alike = [slot for slot in fitting if slot.serves(need, version)]
    if not alike:
        others = ", ".join(sorted({slot.version for slot in fitting}))
        return f"the job is of quadbench {version}, and the hosts that fit have {others}"
    reasons = [f"{slot.bay.name}: {slot.why_not_for(owner) or 'free, starts soon'}" for slot in alike]
    return "; ".join(reasons[:5]) + (f" and {len(reasons) - 5} more" if len(reasons) > 5 else "")


def _ad(bay: Bay) -> dict[str, AdValue]:
    """Return the attributes of the slot that serves a bay."""
    labels = {key: one_line(value, _LONGEST_LABEL) for key, value in islice(bay.labels.items(), _MOST_LABELS)}
    return {
        "SlotDevice": one_line(bay.name) or None,
        **{f"Label_{key}": value for key, value in labels.items() if key.isidentifier() and key.isascii()},
        "SlotReady": not bay.why_not,
        "SlotWhyNot": one_line(bay.why_not) or None,
        "SlotAddress": one_line(bay.address),
        "SlotServes": ",".join(sorted(map(encoded, bay.serves))[:_MOST_NEEDS]),
        "SlotReservedBy": bay.reserved_by and encoded(one_line(bay.reserved_by)),
        "SlotLabels": encoded(json.dumps(labels)),
        "SlotLoaded": encoded(one_line(bay.loaded)) or None,
        "SlotRestedS": round(_rest_s(bay.rested_s)),
    }


def _slot(ad: Ad) -> Slot | None:
    """Return the Slot of an ad, or None if the ad has not the attributes that quadbench writes."""
    try:
        labels = json.loads(unquote(str(ad.get("SlotLabels") or "{}")))
        bay = Bay(
            name=_text(ad, "SlotDevice"),
            address=_text(ad, "SlotAddress"),
            serves=frozenset(_decoded(need) for need in str(ad.get("SlotServes") or "").split(",")[:_MOST_NEEDS] if need),
            labels={one_line(key): one_line(str(value)) for key, value in islice(labels.items(), _MOST_LABELS)},
            why_not=_why_not(ad),
            reserved_by=_decoded(ad.get("SlotReservedBy")) or None,
            loaded=_decoded(ad.get("SlotLoaded")),
            rested_s=_rest_s(ad.get("SlotRestedS")),
        )
        user = _text(ad, "RemoteOwner")
        is_draining = ad.get("State") == "Drained" or ad.get("Activity") == "Retiring"
        return Slot(
            host=_text(ad, "Machine"),
            version=_text(ad, "QuadbenchVersion"),
            state="draining" if is_draining else "busy" if user else "free",
            used_by=user.partition("@")[0] or None,
            bay=bay,
            problem=_text(ad, "SlotProblem"),
            database=_text(ad, "QuadbenchDatabase"),
            store=_text(ad, "QuadbenchStore"),
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _why_not(ad: Ad) -> str:
    seen = ad.get("SlotSeen")
    if not isinstance(seen, int) or seen < time.time() - SILENT_S:
        return _SILENT
    return "" if ad.get("SlotReady") is True else _text(ad, "SlotWhyNot") or "not ready"


def _text(ad: Ad, name: str) -> str:
    value: Any = ad.get(name)
    return one_line(value) if isinstance(value, str) else ""


def _decoded(value: Any) -> str:
    """Return the text that `encoded` was given. A text that no job can name becomes one line of limited length."""
    plain = unquote(value) if isinstance(value, str) else ""
    return plain if plain.isprintable() and len(plain) <= MAX_CHARACTERS else one_line(plain)


def _rest_s(seconds: object) -> float:
    """Return seconds from 0 to a billion, and 0 for anything that is no number."""
    return min(LONGEST_REST_S, max(0.0, seconds)) if isinstance(seconds, (int, float)) else 0.0


def _literal(value: AdValue) -> str:
    """Return a value as a ClassAd writes it. Numbers and truth values are written as in JSON."""
    if isinstance(value, str):
        return quoted(value)
    return "undefined" if value is None else json.dumps(value)
