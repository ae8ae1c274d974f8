"""Lab soak: a farm at work and a random generator -> faults of hosts, cables and the database, each of them mended."""

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from support.farm_lab import LEASE_S, FarmLab


@dataclass
class Soak:
    """Faults of a farm whose hosts do scripted jobs."""

    farm: FarmLab
    chance: random.Random

    def suffer(self, count: int) -> None:
        """Let so many faults happen, each for a while that may be longer than a lease."""
        faults = (self._kill, self._cut, self._freeze, self._freeze_daemons, self._stop_database, self._kill_head)
        for _ in range(count):
            self.chance.choice(faults)()
            self.farm.hurry()
            time.sleep(self.chance.uniform(0, 1))

    def _wait(self) -> None:
        time.sleep(self.chance.choice([0.2, LEASE_S / 4, LEASE_S * 1.2]))

    def _kill(self) -> None:
        host = self.chance.choice(self.farm.lab.hosts)
        master = self.farm.pool.masters[host.name]
        master.kill()
        master.wait()
        self.farm.wait_until(lambda: host.is_idle)
        self._wait()
        self.farm.start_scripted(host, 2, 0.3)

    def _cut(self) -> None:
        host = self.chance.choice(self.farm.lab.hosts)
        host.cut()
        self._wait()
        host.mend()

    def _freeze(self) -> None:
        host = self.chance.choice(self.farm.lab.hosts)
        host.freeze()
        self._wait()
        host.thaw()

    def _freeze_daemons(self) -> None:
        host = self.chance.choice(self.farm.lab.hosts)
        pids = [pid for name in ("condor_startd", "condor_starter") for pid in self.farm.pool.daemons(host, name)]
        self._signal(pids, signal.SIGSTOP)
        self._wait()
        self._signal(pids, signal.SIGCONT)

    def _kill_head(self) -> None:
        name = self.chance.choice(["condor_schedd", "condor_negotiator", "condor_collector"])
        self._signal(self.farm.pool.daemons(self.farm.lab.switch, name), signal.SIGKILL)
        self._wait()

    def _signal(self, pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _stop_database(self) -> None:
        self.farm.server.stop()
        self._wait()
        self.farm.server.start()
