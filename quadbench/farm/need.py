"""Requirements of jobs as strings, such as `device X`. Functions list the requirements that a device or host satisfies.

A job has one requirement and runs wherever that string is served. So jobs are found by an index lookup.
"""

from collections.abc import Mapping

from quadbench.farm.selection import NAME_KEYS, Wish


def capability_need(capability: str) -> str:
    """Return the requirement of a job that needs a host with this capability, such as `build` or `compile ...`."""
    return f"capability {capability}"


def device_need(device: str) -> str:
    """Return the requirement of a job that runs only on this device, given by its name in leases."""
    return f"device {device}"


def wish_need(wish: Wish) -> str:
    """Return the requirement of a job for any device that fits a request. The request `s25*2` gives two jobs, for two devices."""
    return _wished(wish.key or "", wish.value)


def needs_served(device: str, labels: Mapping[str, str]) -> frozenset[str]:
    """Return all job requirements that a device with these labels satisfies. Labels match by the rules of --devices."""
    named = {_wished("", labels[key]) for key in NAME_KEYS if key in labels}
    return frozenset({device_need(device), *named, *(_wished(key, value) for key, value in labels.items())})


def _wished(key: str, value: str) -> str:
    return f"wish {key}={value.casefold()}"
