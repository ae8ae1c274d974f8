"""Known targets: every target of the device profiles once, with the profiles that name it and the addresses that run it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from quadbench.errors import UnknownNameError
from quadbench.target.abi import Abi
from quadbench.target.profile import LOCAL_NAME, BrokenProfile, DeviceProfile
from quadbench.target.targets import Target, target_key

PHONE_ABI = Abi.ARM64_V8A  # of every phone that runs today's Android
PHONE_MACHINE = PHONE_ABI.traits.machine
VIRTUAL_PREFIX = "virtual:"
HOSTED_PREFIX = "hub:"


@dataclass(frozen=True, kw_only=True)
class KnownTarget:
    """A target that a profile names. `addresses` run it; `htp_arch` is the oldest Qualcomm HTP among those profiles."""

    key: str
    target: Target
    profiles: tuple[str, ...]
    addresses: tuple[str, ...]
    htp_arch: str | None


def known_targets(profiles: Sequence[DeviceProfile], machine: str) -> tuple[KnownTarget, ...]:
    """Return every target of the profiles once. `machine` is what virtual devices run on, as `uname -m` says."""
    known: dict[str, KnownTarget] = {}
    for profile in profiles:
        for address, target, runs_on in _uses(profile, machine):
            key = target_key(target, runs_on)
            one = known.get(key, KnownTarget(key=key, target=target, profiles=(), addresses=(), htp_arch=None))
            known[key] = replace(
                one,
                profiles=tuple(dict.fromkeys((*one.profiles, profile.name))),
                addresses=(*one.addresses, address) if address else one.addresses,
                htp_arch=min(filter(None, (one.htp_arch, profile.soc.htp_arch)), default=None),
            )
    return tuple(known.values())


def find_target(name: str, known: Sequence[KnownTarget], broken: Sequence[BrokenProfile] = ()) -> KnownTarget:
    """Return the target with this key, or the one that this address runs. `broken` are profiles whose targets are not known.

    Raises:
        UnknownNameError: there is none.
        UserError: it is the address of a broken profile; it says what is wrong with the file.
    """
    by_name = {address: target for target in known for address in target.addresses} | {target.key: target for target in known}
    if name in by_name:
        return by_name[name]
    for profile in broken:
        if name in {f"{prefix}{profile.name}" for prefix in ("", VIRTUAL_PREFIX, HOSTED_PREFIX)}:
            raise profile.error
    raise UnknownNameError("target", name, by_name)


def _uses(profile: DeviceProfile, machine: str) -> Iterator[tuple[str | None, Target, str]]:
    """Yield a profile's targets, each with the address that runs it, None where no run does, and the machine that it runs on."""
    if profile.name == LOCAL_NAME:
        yield LOCAL_NAME, profile.target, machine
        return
    yield profile.name, profile.target, PHONE_MACHINE
    yield f"{VIRTUAL_PREFIX}{profile.name}", profile.virtual_target, machine
    if profile.hosted_target is not None:
        yield f"{HOSTED_PREFIX}{profile.name}", profile.hosted_target, PHONE_MACHINE
    for alternative in profile.alternatives:
        key, name = target_key(alternative, PHONE_MACHINE), profile.name_of(alternative)
        yield f"{profile.name}?target={name}" if name else None, alternative, PHONE_MACHINE
        virtual = profile.with_target(name).virtual_target if name else None
        if virtual and target_key(virtual, machine) == key:  # an emulator runs what the phone does
            yield f"{VIRTUAL_PREFIX}{profile.name}?target={name}", virtual, machine
