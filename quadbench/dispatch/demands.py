"""Match --devices values with a farm's devices, and plan a run on them: its build, compile and measurement jobs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from quadbench.devices.addresses import parse_address, unique_words, with_target
from quadbench.devices.lab.selection import Wish, chosen, parse_wish
from quadbench.dispatch.orders import BuildOrder, CompareOrder, CompileOrder, MeasureOrder, Order, as_json
from quadbench.errors import DeviceNotFoundError, UserError, quote
from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.slots import Bay, capability_need, device_need, wish_need
from quadbench.rollout.forecast import kind_at

BUILD = "build"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A device request made with --devices. `fit` holds the matching farm devices; `needs` is the requirement string for the job.

    `target` is the compile target that the value names, or None. `wish` is set if any of several devices will do.
    """

    needs: str
    fit: tuple[Bay, ...]
    target: str | None
    wish: Wish | None = None


Demand: TypeAlias = tuple[Asked, MeasureOrder | CompareOrder]
"""A measurement or comparison job to plan: the device that is asked for, and the job's payload."""


def compile_capability(key: str) -> str:
    """Return the name that a host announces if it can compile for target `key`: `compile qnn-v79-69` for `qnn-v79-69`."""
    return f"compile {key}"


def planned(builds: Sequence[BuildOrder], demands: Sequence[Demand]) -> list[NewJob]:
    """Return a farm run's jobs: first build jobs, then compile jobs, then one job to measure or compare for each Demand.

    Each job lists the jobs that must finish before it. A compile target that a request names becomes that of its job.
    """
    jobs: list[NewJob] = []

    def add(needs: str, order: Order, after: Sequence[int], affinity: str = "") -> int:
        kind, payload = JobKind(order.kind), as_json(order)
        jobs.append(NewJob(kind=kind, needs=needs, payload=payload, after=tuple(after), affinity=affinity))
        return len(jobs) - 1

    built = {order.bundle: add(capability_need(BUILD), order, ()) for order in builds}
    compiled: dict[tuple[str, str], int] = {}
    before = [_compile_orders(asked, order) for asked, order in demands]
    for one in (one for needed in before for one in needed):
        if (one.bundle, one.key) not in compiled:
            after = [built[one.bundle]] if one.bundle in built else []
            compiled[one.bundle, one.key] = add(capability_need(compile_capability(one.key)), one, after)
    for (asked, order), needed in zip(demands, before, strict=True):
        after = [compiled[one.bundle, one.key] for one in needed]
        add(asked.needs, replace(order, target=asked.target), after, min(f"{one.bundle} {one.key}" for one in needed))
    return jobs


def asked_for(words: Sequence[str], devices: Sequence[Bay]) -> list[Asked]:
    """Match --devices values with a farm's devices. Return a list of one device request (Asked) per device: two for `s25*2`.

    A single wish stays open until a fitting device is free. If a run is for several devices, each wish is bound now to the first
    fitting ones, so that no device is used twice.

    Raises:
        UserError: no selector was given, a device was named twice, or an option is not supported on a farm.
        DeviceNotFoundError: too few devices of the farm fit a selector.
    """
    if not words:
        hint = "name some, as --devices s25; see: quadbench farm status"
        raise UserError("a run on a farm takes no device by itself", hint=hint)
    asked = [_asked(word, devices) for word in unique_words(words)]
    if sum(one.wish.count if one.wish else 1 for one in asked) == 1:
        return asked
    named = [one.fit[0].name for one in asked if not one.wish]
    for name in named:
        if named.count(name) > 1:
            raise UserError(f"device '{name}' was named twice", hint="name each device once")
    others = {device.name: device for device in devices if device.name not in named}
    wishes = [one.wish for one in asked if one.wish]
    given = iter(chosen(wishes, {name: device.labels for name, device in others.items()}))
    settled = [(one, [others[name] for name in next(given)] if one.wish else one.fit) for one in asked]
    alike: dict[tuple[str, str | None], str] = {}
    for device in (device for _, fit in settled for device in fit):
        other = alike.setdefault((device.address, device.labels.get("serial")), device.name)
        if other != device.name:  # such as `virtual:s25` on two hosts
            problem = f"are both '{device.address}' in records, and a run could not tell them apart"
            raise UserError(f"'{other}' and '{device.name}' {problem}", hint="submit a run for each")
    return [Asked(needs=device_need(device.name), fit=(device,), target=one.target) for one, fit in settled for device in fit]


def _compile_orders(asked: Asked, order: MeasureOrder | CompareOrder) -> list[CompileOrder]:
    """Return the payloads of the compile jobs before an order, one per bundle and compile target of the matching devices."""
    kinds = [kind_at(with_target(parse_address(device.address), asked.target)) for device in asked.fit]
    before = dict[tuple[str, str], CompileOrder]()
    for kind in kinds:
        alike = [other.profile.soc.htp_arch for other in kinds if other.key == kind.key]
        oldest = min((arch for arch in alike if arch), default=None)
        bundles = [order.bundles[kind.profile.name]] if isinstance(order, MeasureOrder) else [order.a.bundle, order.b.bundle]
        for bundle in bundles:
            before[bundle, kind.key] = CompileOrder(bundle=bundle, target=kind.target, key=kind.key, htp_arch=oldest)
    return list(before.values())


def only_device(word: str, devices: Sequence[Bay]) -> Asked:
    """Return the device request (Asked) for the only farm device that matches a --devices value. Raise if none or several match.

    Raises:
        DeviceNotFoundError: no device of the farm fits it.
        UserError: several fit it, or it has an option that is not supported on a farm.
    """
    asked = _asked(word, devices)
    if len(asked.fit) > 1:
        names = ", ".join(sorted(device.name for device in asked.fit))
        raise UserError(f"'{word}' fits several devices of the farm: {names}", hint="name one of them")
    return replace(asked, needs=device_need(asked.fit[0].name))


def _asked(word: str, devices: Sequence[Bay]) -> Asked:
    plain, _, options = word.partition("?")
    target = options.removeprefix("target=")
    if options and (target == options or not target or "&" in target):
        raise UserError(f"'{word}': devices of a farm take the option ?target=NAME alone", hint="see docs/farm.md")
    profile, _, serial = plain.rpartition("@")
    exact = [device for device in devices if plain == device.name or serial == device.labels.get("serial")]
    if len(exact) == 1:
        is_of, name = exact[0].labels.get("profile"), exact[0].name
        if is_of is None:
            raise UserError(f"'{plain}': the device is of no profile that its host knows", hint="see docs/adding-a-device.md")
        if profile not in ("", is_of) and plain not in (name, exact[0].labels.get("serial")):
            raise UserError(f"'{plain}': the profile of the device is '{is_of}', not '{profile}'", hint=f"name it {name}")
        return Asked(needs=device_need(name), fit=tuple(exact), target=target or None)
    keys = {key for device in devices for key in device.labels}
    wish = parse_wish(plain, tuple(keys)) or Wish(word=plain, key=None, value=plain, count=1)
    fit = tuple(device for device in devices if "profile" in device.labels and wish.fits(device.labels))
    if len(fit) < wish.count:
        known = ", ".join(sorted(device.labels.get("name", device.name) for device in devices)) or "none"
        hint = f"its devices are: {known}; a host tells of its own some seconds after its start: quadbench farm status"
        few = f"the farm has {len(fit)} devices that fit {quote(word)}; expected at least {wish.count}"
        raise DeviceNotFoundError(few, hint=hint)
    return Asked(needs=wish_need(wish), fit=fit, target=target or None, wish=wish)
