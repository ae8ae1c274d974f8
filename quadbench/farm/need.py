"""Need: a capability, a device or a wish -> the word by which a job says what it needs, and a worker what it serves. Pure.

A job needs one word. It runs wherever that word is served, so that jobs are looked up by it and compared with nothing.
"""

from collections.abc import Mapping

from quadbench.farm.selection import NAME_KEYS, Wish


def capability_need(capability: str) -> str:
    """Return the need of a job that runs on a host which can do this, as `build` or `compile`."""
    return f"capability {capability}"


def device_need(device: str) -> str:
    """Return the need of a job that runs on this device alone, by the name under which it is leased."""
    return f"device {device}"


def wish_need(wish: Wish) -> str:
    """Return the need of a job that runs on any device which fits; its count is the number of such jobs, and stands elsewhere."""
    return _wished(wish.key or "", wish.value)


def needs_served(device: str, labels: Mapping[str, str]) -> frozenset[str]:
    """Return every need that a device with these labels serves: just those wishes that `Wish.fits`."""
    named = {_wished("", labels[key]) for key in NAME_KEYS if key in labels}
    return frozenset({device_need(device), *named, *(_wished(key, value) for key, value in labels.items())})


def _wished(key: str, value: str) -> str:
    return f"wish {key}={value.casefold()}"
