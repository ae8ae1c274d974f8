"""Conduct: how a run bears devices that fail, and when it shall be over."""

import time
from dataclasses import dataclass, replace
from typing import Self

from quadbench.measure import Budget
from quadbench.rollout.recovery import RETRIES, WAIT_S


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """The conduct of a run: how often a device that was lost is waited for, and how long; and how long the run may take.

    With `keep_going`, devices that cannot be reached or taken are left out; else nothing is begun without them.
    """

    retries: int = RETRIES
    wait_s: float = WAIT_S
    budget_s: float | None = None
    keep_going: bool = False

    @property
    def budget(self) -> Budget | None:
        """Return the time of a run that begins now; None is as long as it takes."""
        return None if self.budget_s is None else Budget(ends_at=time.monotonic() + self.budget_s)

    def since(self, began: float) -> Self:
        """Return the conduct of one of several runs in the time of all, which began at this moment of the monotonic clock."""
        return self if self.budget_s is None else replace(self, budget_s=self.budget_s - (time.monotonic() - began))


USUAL = Conduct()
