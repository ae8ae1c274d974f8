"""A farm's pool as a night sees it: which needs of jobs its slots serve, and patience while it does not answer."""

import logging
import math
import time
from collections.abc import Callable, Set
from typing import TypeVar

from quadbench.artifacts.run_record import WAIT_S
from quadbench.dispatch.submission import Farm
from quadbench.errors import QuadbenchError, ServiceError, StorageError
from quadbench.farm.dag import settle
from quadbench.farm.slots import Slot, read_slots
from quadbench.host import user_and_host
from quadbench.measure.launch_schedule import Budget

LOOK_S = 2.0  # between looks at the database
POOL_LOOK_S = 20.0  # between looks at the pool, each of which starts three of HTCondor's programs
AWAY = (StorageError, ServiceError)
"""The errors of a pool, database or store that does not answer."""

Need = tuple[str, str]
"""A need of a job, and the quadbench version that it requires."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class Patience:
    """Asks a pool or database that does not answer again, until it has been silent for five minutes or the budget is over."""

    def __init__(self, budget: Budget | None) -> None:
        self._budget = budget
        self._silent_since: float | None = None

    def ask(self, act: Callable[[], T]) -> T:
        """Return what `act` returns. As long as it raises an error of AWAY, call it again.

        Raises:
            StorageError, ServiceError: the last error, when patience is over.
        """
        while True:
            try:
                answer = act()
            except AWAY as error:
                now = time.monotonic()
                if self._silent_since is None:
                    self._silent_since = now
                    log.warning("the farm does not answer, and is asked again for %g minutes: %s", WAIT_S / 60, error)
                if now - self._silent_since > WAIT_S or (self._budget and self._budget.left_s <= 0):
                    raise
                time.sleep(LOOK_S)
            else:
                self._silent_since = None
                return answer


class ServedNeeds:
    """The needs that the pool's slots serve, and how long others have been unserved. A silent pool says nothing about them."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._looked_at = -math.inf
        self._served: Set[Need] | None = None
        self._gone_since: dict[Need, float] = {}

    def look(self) -> None:
        """Look at the pool unless that was done less than 20 s ago, and settle jobs that have left its queue."""
        if time.monotonic() - self._looked_at < POOL_LOOK_S:
            return
        self._looked_at = time.monotonic()
        try:
            settle(self._farm.engine, self._farm.pool)
            self._served = _served(read_slots(self._farm.pool), user_and_host())
        except QuadbenchError as error:
            log.warning("the state of the farm's pool is not known: %s", error)
            self._served = None
            self._gone_since.clear()  # what was not seen cannot be counted as time without a slot
            return
        self._gone_since = {need: since for need, since in self._gone_since.items() if need not in self._served}

    def unserved_reason(self, needs: Set[Need]) -> str | None:
        """Return a reason if no slot has served one of the needs for five minutes, else None."""
        if self._served is None:
            return None
        now = time.monotonic()
        for need in sorted(needs - self._served):
            if now - self._gone_since.setdefault(need, now) > WAIT_S:
                return f"no host with quadbench {need[1]} has had the {need[0]} for {WAIT_S / 60:g} minutes"
        return None


def _served(slots: list[Slot], owner: str) -> set[Need]:
    """Return the needs that slots serve. Leave out absent devices, draining hosts, and what somebody else has reserved."""
    own = [slot for slot in slots if slot.is_present and slot.state != "draining" and slot.bay.reserved_by in (None, owner)]
    return {(need, slot.version) for slot in own for need in slot.bay.serves}
