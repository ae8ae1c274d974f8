"""Scripted host: how many phones, the length of a job, a version -> a program that describes a host's slots, as `farm host` does.

Its phones are always there and nobody's, and its attempts do scripted jobs.
"""

import sys
import time

from quadbench.dispatch.attempt_server import serving_attempts
from quadbench.farm.slots import Bay, Bays, needs_served
from quadbench.host import host_name
from support.scripted_jobs import make_attempt

VERSION = "1"


def phones(count: int, name: str) -> list[Bay]:
    """Return the bays of so many phones, one as the other."""
    bays = []
    for number in range(count):
        labels = {"name": f"s25@{name}-{number}", "profile": "s25", "serial": f"{name}-{number}"}
        serial = labels["serial"]
        bays.append(Bay(name=serial, address=labels["name"], serves=needs_served(serial, labels), labels=labels))
    return bays


def main(count: str, version: str = VERSION) -> None:
    bays, mine = Bays(int(count)), phones(int(count), host_name())
    with serving_attempts(f"{make_attempt.__module__}:{make_attempt.__name__}") as server:
        while True:
            sys.stdout.write(bays.ads(mine, version, server))
            sys.stdout.flush()
            time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
