"""Build jobs' requirement strings, such as `device NAME`, and list all requirement strings that a given device meets.

A job has one requirement and runs wherever that string is served. So jobs are found by an index lookup.
"""

from collections.abc import Mapping

from quadbench.farm.selection import NAME_KEYS, Wish


def capability_need(capability: str) -> str:
    """Return the requirement string `capability NAME` of a job that needs a host with the capability, such as `build`."""
    return f"capability {capability}"


def device_need(device: str) -> str:
    """Return the requirement string `device NAME` of a job for one particular device. NAME is an adb serial or `SERIAL@HOST`."""
    return f"device {device}"


def wish_need(wish: Wish) -> str:
    """Return a requirement string such as `wish chip=sm8750`, for a job that any device with the wished label can run."""
    return _wished(wish.key or "", wish.value)


def needs_served(device: str, labels: Mapping[str, str]) -> frozenset[str]:
    """Return all requirement strings that a device meets. `device` is its name in leases; `labels` maps label keys to values."""
    named = {_wished("", labels[key]) for key in NAME_KEYS if key in labels}
    return frozenset({device_need(device), *named, *(_wished(key, value) for key, value in labels.items())})


def _wished(key: str, value: str) -> str:
    return f"wish {key}={value.casefold()}"
