"""Lab pool: the hosts of a lab -> HTCondor on them, set up by `quadbench farm init`, with its head on the lab's switch.

HTCondor runs no jobs of root. So all of it runs in a user namespace, where root is called nobody and still reaches root's files,
and in a process namespace for each host, which ends as a whole.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quadbench.farm.condor import Condor
from quadbench.host import find_program
from support.lab import Host, Lab

OWNER = "ana"
_PATIENCE_S = 60.0
_NOBODY = 65_534
AS_NOBODY = ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}")
OF_ITS_OWN = ("--pid", "--fork", "--kill-child=KILL", "--mount-proc")
# Times of a lab are thirty times as short as a farm's.
QUICK = {
    "NEGOTIATOR_INTERVAL": "2",
    "SCHEDD_INTERVAL": "2",
    "PERIODIC_EXPR_INTERVAL": "2",
    "DAGMAN_USER_LOG_SCAN_INTERVAL": "1",
    "UPDATE_INTERVAL": "3",
    "ALIVE_INTERVAL": "2",
    "TCP_KEEPALIVE_INTERVAL": "2",
    "STARTER_INITIAL_UPDATE_INTERVAL": "1",
    "STARTER_UPDATE_INTERVAL": "1",
    "STARTER_UPDATE_INTERVAL_MAX": "2",
    "SHADOW_DEBUG": "D_FULLDEBUG",
    "MASTER_NEW_BINARY_DELAY": "1",
    "MASTER_BACKOFF_CONSTANT": "1",
    "MASTER_BACKOFF_CEILING": "3",
}


@dataclass
class LabPool:
    """A pool whose head is on the switch. `environment` is that of quadbench on all hosts."""

    lab: Lab
    folder: Path
    environment: Mapping[str, str]
    masters: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def condor(self, host: Host) -> Condor:
        return Condor(configuration=self._home(host) / ".quadbench" / "pool" / "condor_config")

    def settings(self, host: Host) -> dict[str, str]:
        """Return the environment of commands and daemons on a host."""
        return {**self.environment, "HOME": str(self._home(host)), "LOGNAME": OWNER, "USER": OWNER}

    def settings_of_desk(self, host: Host) -> dict[str, str]:
        """Return the environment of commands on a host, which at least submits."""
        if not self.condor(host).configuration.exists():
            self.set_up(host, "--role", "desk")
        return self.settings(host)

    def set_up(self, host: Host, *words: str, settings: Mapping[str, str] | None = None) -> None:
        """Run `quadbench farm init` on a host, and give it and its person the tokens of the head."""
        folder, address = self.condor(host).configuration.parent, self.lab.switch.address
        folder.mkdir(parents=True, exist_ok=True)
        local = {**QUICK, **(settings or {})}
        (folder / "condor_config.local").write_text("".join(f"{name} = {text}\n" for name, text in local.items()))
        self.quadbench(host, "farm", "init", "--head", address, *words, "--results", str(self.folder / host.name))
        if host is not self.lab.switch:
            for words_of_token, place in ((("--host",), "host-tokens.d/head"), ((OWNER,), f"tokens.d/{OWNER}")):
                token = self.quadbench(self.lab.switch, "farm", "token", *words_of_token)
                (folder / place).touch(0o600)
                (folder / place).write_text(token)

    def quadbench(self, host: Host, *words: object) -> str:
        """Run a command of quadbench on a host as nobody, and return what it prints."""
        command = host.command(*AS_NOBODY, "--", sys.executable, "-P", "-m", "quadbench", *words)
        settings = {**os.environ, **self.settings(host)}
        run = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
        assert run.returncode == 0, f"{words}: {run.stderr} {run.stdout}"
        return run.stdout

    def start(self, host: Host, settings: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start HTCondor on a host. It ends, with all jobs, when the process that is returned is killed."""
        environment = {**self.settings(host), "CONDOR_CONFIG": str(self.condor(host).configuration), **(settings or {})}
        words = (*AS_NOBODY, *OF_ITS_OWN, "--", "condor_master", "-f")
        master = self.lab.start(host, *words, log=self.folder / f"{host.name}.log", environment=environment)
        self.masters[host.name] = master
        return master

    def tool(self, *words: str, is_owner: bool = False) -> str:
        """Run one of HTCondor's tools on the head, as its administrator or the jobs' owner, and return what it prints."""
        configuration = self.condor(self.lab.switch).configuration
        tokens = configuration.parent / ("tokens.d" if is_owner else "host-tokens.d")
        settings = {**os.environ, "CONDOR_CONFIG": str(configuration), "_CONDOR_SEC_TOKEN_DIRECTORY": str(tokens)}
        command = self.lab.switch.command(*words)
        return subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=_PATIENCE_S).stdout

    def slot_count(self) -> int:
        """Return how many slots with a device the collector knows to be ready."""
        return len(
            self.tool("condor_status", "-constraint", "SlotReady =?= True && time() - SlotSeen < 20", "-af", "Name").split()
        )

    def daemons(self, host: Host, name: str) -> list[int]:
        """Return the process ids of a host's daemons of this name, such as condor_schedd."""
        return [pid for pid in host.processes if _name(pid) == name[:15]]

    def wait_until(self, is_so: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline, what
            time.sleep(0.2)

    def _home(self, host: Host) -> Path:
        return self.folder / "homes" / host.name


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@contextmanager
def lab_pool(lab: Lab, folder: Path, environment: Mapping[str, str]) -> Iterator[LabPool]:
    """Start the head of a pool on the switch of a lab; skip the test without HTCondor. The pool ends with the lab."""
    if find_program("condor_master") is None:
        pytest.skip("HTCondor is not installed: apt-get install --no-install-recommends condor")
    pool = LabPool(lab=lab, folder=folder, environment=environment)
    pool.set_up(lab.switch, "--role", "head")
    pool.start(lab.switch)
    pool.wait_until(lambda: pool.tool("condor_status", "-schedd", "-af", "Name").strip(), "the head does not start")
    yield pool
