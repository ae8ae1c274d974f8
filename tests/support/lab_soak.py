"""Lab soak: a farm at work and a random generator -> faults of hosts, cables and the database, each of them mended."""

import random
import signal
import time
from dataclasses import dataclass

from support.farm_lab import LEASE_S, FarmLab


@dataclass
class Soak:
    """Faults of a farm whose workers do scripted jobs."""

    farm: FarmLab
    chance: random.Random

    def suffer(self, count: int) -> None:
        """Let so many faults happen, each for a while that may be longer than a lease."""
        faults = (self._kill, self._cut, self._freeze, self._freeze_worker, self._stop_database)
        for _ in range(count):
            self.chance.choice(faults)()
            self.farm.hurry()
            time.sleep(self.chance.uniform(0, 1))

    def _wait(self) -> None:
        time.sleep(self.chance.choice([0.2, LEASE_S / 4, LEASE_S * 1.2]))

    def _kill(self) -> None:
        host = self.chance.choice(self.farm.lab.hosts)
        worker = self.farm.workers[host.name]
        worker.kill()
        worker.wait()
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

    def _freeze_worker(self) -> None:
        worker = self.farm.workers[self.chance.choice(self.farm.lab.hosts).name]
        worker.send_signal(signal.SIGSTOP)
        self._wait()
        worker.send_signal(signal.SIGCONT)

    def _stop_database(self) -> None:
        self.farm.server.stop()
        self._wait()
        self.farm.server.start()
