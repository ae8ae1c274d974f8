"""Lab: network namespaces of this machine -> hosts with names and addresses of their own, that can be cut off and frozen.

A switch is a namespace as well, in which what all hosts reach is started. Nothing listens outside these namespaces.
"""

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

_NETWORK = "10.213.77"  # of the lab alone: no other namespace sees it
_CLONE_NEWNET = 0x40000000  # sched.h
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Host:
    """A host: a network namespace with a name for the machine. `number` is the last of its address."""

    name: str
    number: int
    space: str

    @property
    def address(self) -> str:
        return f"{_NETWORK}.{self.number}"

    @property
    def network(self) -> str:
        return f"{_NETWORK}.0/24"

    @property
    def processes(self) -> list[int]:
        """Return the ids of all that runs on the host, but for what has namespaces of its own there."""
        listed = subprocess.run(["ip", "netns", "pids", self.space], check=True, capture_output=True, text=True)
        return [int(word) for word in listed.stdout.split()]

    @property
    def is_idle(self) -> bool:
        """Say whether nothing runs there but adb's server, which outlives whoever has started it."""
        names = [Path("/proc", str(process), "comm") for process in self.processes]
        return all(not name.exists() or name.read_text() == "adb\n" for name in names)

    def freeze(self) -> None:
        """Stop all that runs on the host, as a machine that sleeps does."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def command(self, *words: object) -> list[str]:
        """Return a command as it runs on the host."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        return ["ip", "netns", "exec", self.space, *named, *map(str, words)]

    def cut(self) -> None:
        """Pull the host's cable."""
        _ip("-n", self.space, "link", "set", "eth0", "down")

    def mend(self) -> None:
        _ip("-n", self.space, "link", "set", "eth0", "up")


@dataclass
class Lab:
    """Hosts on one switch."""

    switch: Host
    hosts: Sequence[Host]
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, host: Host, *words: object, log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program on a host. It ends with the lab."""
        settings = {**os.environ, **(environment or {})}
        with log.open("ab") as output:
            process = subprocess.Popen(
                host.command(*words), env=settings, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._processes.append(process)
        return process

    def stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        for host in self.hosts:
            host._signal(signal.SIGKILL)  # adb's server too


@contextmanager
def lab(*names: str) -> Iterator[Lab]:
    """Build hosts of these names; skip the test where that takes rights that it does not have."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root, and iproute2: apt-get install iproute2")
    mark = f"qb{os.getpid()}"
    hosts = [Host(name=name, number=10 + number, space=f"{mark}-{number}") for number, name in enumerate(names)]
    with ExitStack() as stack:
        switch = Host(name="switch", number=1, space=f"{mark}-s")
        stack.enter_context(_namespace(switch))
        _ip("-n", switch.space, "link", "add", "bridge", "type", "bridge")
        for host in hosts:
            stack.enter_context(_namespace(host))
            _ip("-n", switch.space, "link", "add", host.space, "type", "veth", "peer", "name", "eth0", "netns", host.space)
            _ip("-n", switch.space, "link", "set", host.space, "master", "bridge", "up")
            _ip("-n", host.space, "address", "add", f"{host.address}/24", "dev", "eth0")
            host.mend()
        names_of_lab = "".join(f"{host.address} {host.name}\n" for host in (switch, *hosts))
        for host in (switch, *hosts):
            names_file = Path("/etc/netns", host.space, "hosts")  # `ip netns exec` puts it at /etc/hosts
            names_file.parent.mkdir(parents=True)
            stack.callback(shutil.rmtree, names_file.parent)
            names_file.write_text(f"127.0.0.1 localhost\n{names_of_lab}")
        _ip("-n", switch.space, "address", "add", f"{switch.address}/24", "dev", "bridge")
        _ip("-n", switch.space, "link", "set", "bridge", "up")
        built = Lab(switch=switch, hosts=hosts)
        stack.callback(built.stop)
        yield built


@contextmanager
def _namespace(host: Host) -> Iterator[None]:
    _ip("netns", "add", host.space)
    try:
        _ip("-n", host.space, "link", "set", "lo", "up")
        yield
    finally:
        _ip("netns", "delete", host.space)


def inside(host: Host | None, act: Callable[[], ResultT]) -> ResultT:
    """Do something as if this process were on a host; None is where it is. Only a thread goes there, which then ends."""
    if host is None:
        return act()

    def there() -> ResultT:
        with Path("/run/netns", host.space).open() as space:
            if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return act()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(there).result()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
