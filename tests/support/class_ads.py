"""HTCondor's own ClassAds: a slot's ad as it is printed and a job -> whether the two match, by Debian's Python bindings."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

_PYTHON = "/usr/bin/python3"  # the bindings are in Debian's package `condor`, for Debian's Python
_PROGRAM = """
import json, sys
import classad2 as classad
start, slot, job, requirements = json.load(sys.stdin)
machine, wanted = classad.parseOne(slot), classad.ClassAd(job)
machine["Requirements"], wanted["Requirements"] = classad.ExprTree(start), classad.ExprTree(requirements)
print(json.dumps(machine.symmetricMatch(wanted)))
"""


def matches(start: str, slot: str, job: Mapping[str, str | int], requirements: str) -> bool:
    """Return whether a slot starts a job that its requirements send there. `slot` is the ad, without the line of its name."""
    if not (Path(_PYTHON).exists() and subprocess.run([_PYTHON, "-c", "import classad2"], capture_output=True).returncode == 0):
        pytest.skip("HTCondor's bindings are not installed: apt-get install --no-install-recommends condor")
    sent = json.dumps([start, slot, job, requirements])
    ended = subprocess.run([_PYTHON, "-c", _PROGRAM], input=sent, capture_output=True, text=True, check=True, timeout=60)
    return bool(json.loads(ended.stdout))
