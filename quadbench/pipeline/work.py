"""Work: what a run measures, of which bundles and on what terms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quadbench.artifacts import Bundle, DeviceFacts, Stored
from quadbench.recipe import Terms


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of a run: what it measures. `bundles_of` returns by device profile the bundle that devices run, built if need be.

    `run_id` is that of a run that goes on, of which nothing need be there yet, and `devices` are those that it had; None begins
    a new one.
    """

    name: str
    terms: Terms
    bundles_of: Callable[[Sequence[str]], Mapping[str, Stored[Bundle]]]
    run_id: str | None = None
    devices: tuple[DeviceFacts, ...] = ()
