"""Match --devices values with a farm's devices, and determine the compile jobs that a run on the matched devices needs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from quadbench.devices.addresses import parse_address, unique_words, with_target
from quadbench.dispatch.orders import CompileOrder, MeasureOrder
from quadbench.dispatch.plan import Demand
from quadbench.errors import DeviceNotFoundError, UserError
from quadbench.farm.need import device_need, wish_need
from quadbench.farm.selection import Wish, chosen, parse_wish
from quadbench.farm.workers import WorkerDevice
from quadbench.rollout.forecast import kind_at


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A device request made with --devices. `fit` holds the matching farm devices; `needs` is the requirement string for the job.

    `target` is the compile target that the value names, or None. `wish` is set if any of several devices will do.
    """

    needs: str
    fit: tuple[WorkerDevice, ...]
    target: str | None
    wish: Wish | None = None


def asked_for(words: Sequence[str], devices: Sequence[WorkerDevice]) -> list[Asked]:
    """Match --devices values with a farm's devices. Return a list of one device request (Asked) per device: two for `s25*2`.

    A single wish stays open until a fitting device is free. If a run is for several devices, each wish is bound now to the first
    fitting ones, so that no device is used twice.

    Raises:
        UserError: no selector was given, a device was named twice, or an option is not supported on a farm.
        DeviceNotFoundError: too few devices of the farm fit a selector.
    """
    if not words:
        raise UserError(
            "a run on a farm takes no device by itself", hint="name some, as --devices s25; see: quadbench farm status"
        )
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
    _refuse_alike([device for _, fit in settled for device in fit])
    return [Asked(needs=device_need(device.name), fit=(device,), target=one.target) for one, fit in settled for device in fit]


def _refuse_alike(devices: Sequence[WorkerDevice]) -> None:
    """Raise if two devices, such as `virtual:s25` on two hosts, would have the same name in a run's records."""
    named: dict[tuple[str, str | None], str] = {}
    for device in devices:
        other = named.setdefault((device.address, device.labels.get("serial")), device.name)
        if other != device.name:
            raise UserError(
                f"'{other}' and '{device.name}' are both '{device.address}' in records, and a run could not tell them apart",
                hint="submit a run for each",
            )


def demands_of(asked: Iterable[Asked], order: MeasureOrder) -> list[Demand]:
    """Return a list of Demands (a run's work on one device), one per device request. Each contains `order` and compile jobs."""
    return [
        Demand(needs=one.needs, order=replace(order, target=one.target), compiled=compile_orders(one, order.bundles))
        for one in asked
    ]


def compile_orders(asked: Asked, bundles: Mapping[str, str]) -> tuple[CompileOrder, ...]:
    """Return a tuple of compile job payloads, one per bundle and compile target that the devices matching a request need."""
    kinds = [kind_at(with_target(parse_address(device.address), asked.target)) for device in asked.fit]
    orders = {}
    for kind in kinds:
        alike = [other.profile.soc.htp_arch for other in kinds if other.key == kind.key]
        order = CompileOrder(
            bundle=bundles[kind.profile.name],
            target=kind.target,
            key=kind.key,
            htp_arch=min((arch for arch in alike if arch), default=None),
        )
        orders[order.bundle, order.key] = order
    return tuple(orders.values())


def only_device(word: str, devices: Sequence[WorkerDevice]) -> Asked:
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


def _refuse_unlike(profile: str, word: str, device: WorkerDevice) -> None:
    """Raise UserError if a device's profile is unknown, or if neither `profile` ("" fits all) nor `word` (name, serial) fits."""
    is_of = device.labels.get("profile")
    if is_of is None:
        raise UserError(f"'{word}': the device is of no profile that its host knows", hint="see docs/adding-a-device.md")
    if profile not in ("", is_of) and word not in (device.name, device.labels.get("serial")):
        raise UserError(f"'{word}': the profile of the device is '{is_of}', not '{profile}'", hint=f"name it {device.name}")


def _asked(word: str, devices: Sequence[WorkerDevice]) -> Asked:
    plain, _, options = word.partition("?")
    target = options.removeprefix("target=")
    if options and (target == options or not target or "&" in target):
        raise UserError(f"'{word}': devices of a farm take the option ?target=NAME alone", hint="see docs/farm.md")
    profile, _, serial = plain.rpartition("@")
    exact = [device for device in devices if plain == device.name or serial == device.labels.get("serial")]
    if len(exact) == 1:
        _refuse_unlike(profile, plain, exact[0])
        return Asked(needs=device_need(exact[0].name), fit=tuple(exact), target=target or None)
    keys = {key for device in devices for key in device.labels}
    wish = parse_wish(plain, tuple(keys)) or Wish(word=plain, key=None, value=plain, count=1)
    fit = tuple(device for device in devices if "profile" in device.labels and wish.fits(device.labels))
    if len(fit) < wish.count:
        known = ", ".join(sorted(device.labels.get("name", device.name) for device in devices)) or "none"
        raise DeviceNotFoundError(
            f"the farm has {len(fit)} devices that fit '{word}'; expected at least {wish.count}",
            hint=f"its devices are: {known}; a worker has to run where they are attached, and names them some seconds after "
            "its start: quadbench farm status",
        )
    return Asked(needs=wish_need(wish), fit=fit, target=target or None, wish=wish)
