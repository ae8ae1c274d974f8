"""Probe bundle: the smallest bundle that the harness runs, in this package -> its artifact, and a launch of it.

tests/support/probe_bundle.py has made it, and says what is in it. Its image was computed by NumPy alone.
"""

from pathlib import Path

from quadbench.artifacts import Bundle, LaunchPlan, SequenceBlock, Stored, Variant
from quadbench.results.manifest import read_manifest

PROBE_FOLDER = Path(__file__).parent / "probe"
PROBE = "probe"
"""The name of its task and of its adapter."""
PROBE_ITEM = "000"


def probe_bundle() -> Stored[Bundle]:
    """Return the bundle.

    Raises:
        ArtifactError: the installed package is damaged.
    """
    return read_manifest(PROBE_FOLDER, Bundle)


def probe_launch(variant: Variant) -> LaunchPlan:
    """Return a launch that paints its image once."""
    return LaunchPlan(variant=variant, launch=0, sequence=(SequenceBlock(task=PROBE, warmup=0, iterations=1),))
