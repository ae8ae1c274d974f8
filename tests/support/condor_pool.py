"""HTCondor for tests: Debian's programs -> a pool on 127.0.0.1 with static slots, whose owners submit by the command line.

Root's pool runs in a user and pid namespace, under the name of `nobody`: files stay root's, and the kernel ends it as a whole.
Anybody else's runs directly. Tokens are the only way in. Jobs run as the pool's user and can read its signing key, so owners here
are names to share by, and no protection.
"""

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quadbench.host import start_child

Attributes = Mapping[str, str | int | float | bool]

_DOMAIN, _NOBODY = "quadbench.test", "nobody"
_PATIENCE_S = 60.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LONGEST_SOCKET_FOLDER = 80  # of the 108 bytes of a Unix socket's path
_CONFIGURATION = Path(__file__).with_name("condor_pool.conf")


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that runs. `cpu_s` has its own time and that of its ended children, such as shadows and jobs."""

    pid: int
    parent: int
    name: str
    rss_bytes: int
    cpu_s: float


class CondorPool:
    """A pool that runs. Owners need no account: whoever submits gets a token."""

    def __init__(self, folder: Path, slots: Sequence[Attributes], settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._is_root = os.geteuid() == 0
        self._user = pwd.getpwnam(_NOBODY) if self._is_root else pwd.getpwuid(os.geteuid())
        self._configuration = folder / "condor_config"
        self._master: subprocess.Popen[bytes] | None = None
        for name in ("log", "spool", "execute", "lock", "run", "sockets", "keys", "tokens"):
            (folder / name).mkdir(parents=True, mode=0o700)
        key = folder / "keys" / "POOL"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(64))
        self._configuration.write_text(_CONFIGURATION.read_text() + "".join(self._lines(slots, settings)))

    def submit(self, text: str, owner: str) -> list[str]:
        """Submit jobs by a submit description, and return their ids, such as 1.0, in order."""
        ids = []
        for line in self.tool("condor_submit", "-terse", "-", owner=owner, sent=text).splitlines():
            (cluster, first), (_, last) = (word.strip().split(".") for word in line.split(" - "))
            ids += [f"{cluster}.{number}" for number in range(int(first), int(last) + 1)]
        return ids

    def jobs(self, *attributes: str) -> list[dict[str, Any]]:
        """Return all owners' jobs in the queue, with these attributes, or all."""
        return _ads(self.tool("condor_q", "-allusers", "-json", *_chosen(attributes)))

    def history(self, *attributes: str) -> list[dict[str, Any]]:
        """Return the jobs that have left the queue, the last one first."""
        return _ads(self.tool("condor_history", "-json", *_chosen(attributes)))

    def slots(self, *attributes: str) -> list[dict[str, Any]]:
        """Return the slots as the collector knows them."""
        return _ads(self.tool("condor_status", "-json", *_chosen(attributes)))

    def processes(self) -> list[Process]:
        """Return all processes of the pool, jobs among them."""
        return processes_under(self._master.pid) if self._master else []

    def daemons(self) -> list[Process]:
        """Return HTCondor's own processes: daemons, shadows and starters."""
        return [process for process in self.processes() if process.name.startswith("condor_")]

    def tool(self, *command: str, owner: str | None = None, sent: str = "", folder: Path | None = None) -> str:
        """Run one of HTCondor's tools as an owner, or as the pool's administrator, in a folder. Return what it prints."""
        environment = self._environment()
        if owner:
            environment["_CONDOR_SEC_TOKEN_DIRECTORY"] = str(self.tokens_of(owner))
        run = self._run(*command, environment=environment, sent=sent, folder=folder)
        if run.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {run.returncode}: {run.stderr.strip() or run.stdout.strip()}")
        return run.stdout

    def as_user(self, *command: str, namespace: Sequence[str] = ()) -> list[str]:
        """Return a command that runs under the name of the pool's user, who is who started the pool, outside of the namespace."""
        if not self._is_root:
            return list(command)
        ids = (f"--map-user={self._user.pw_uid}", f"--map-group={self._user.pw_gid}")
        return ["unshare", "--user", *ids, *namespace, "--", *command]

    def start(self) -> None:
        """Start the daemons, and wait until the collector knows every slot and the schedd answers."""
        self.tokens_of(None)
        command = self.as_user("condor_master", "-f", namespace=("--pid", "--fork", "--kill-child=KILL", "--mount-proc"))
        with (self.folder / "master.log").open("ab") as log:
            self._master = start_child(command, env=self._environment(), cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                if len(self.slots("Name")) == self._slot_count:
                    self.jobs("ClusterId")
                    return
                reason = "the slots are not all there"
            except AssertionError as error:
                reason = str(error)
            if self._master.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the pool does not start: {reason} {(self.folder / 'master.log').read_text()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the daemons, jobs and all; whatever does not stop by itself is killed."""
        if not self._master:
            return
        with suppress(ProcessLookupError):
            for process in self.daemons():
                if process.name == "condor_master":
                    os.kill(process.pid, signal.SIGQUIT)
        with suppress(subprocess.TimeoutExpired):
            self._master.wait(_PATIENCE_S / 2)
        self._master.kill()
        self._master.wait()
        self._master = None
        for pid in self._left_over():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _left_over(self) -> list[int]:
        """Return the processes that a pool without a namespace leaves: their environment names its configuration or folder."""
        marks = (f"CONDOR_CONFIG={self._configuration}\0".encode(), f"_CONDOR_SCRATCH_DIR={self.folder}/".encode())
        pids = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environment = (entry / "environ").read_bytes()
                pids += [int(entry.name)] if any(mark in environment for mark in marks) else []
        return pids

    def tokens_of(self, owner: str | None) -> Path:
        """Return the folder of an owner's token, made when it is first asked for; it belongs to its reader, or is not read."""
        name = owner or self._user.pw_name
        folder = self.folder / "tokens" if owner is None else self.folder / "owners" / owner
        if not (token := folder / "token").exists():
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            made = self._run("condor_token_create", "-identity", f"{name}@{_DOMAIN}", environment=self._environment())
            assert made.returncode == 0, made.stderr
            token.touch(0o600)
            token.write_text(made.stdout)
        return folder

    def _run(
        self, *command: str, environment: Mapping[str, str], sent: str = "", folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        words, where = self.as_user(*command), folder or self.folder
        return subprocess.run(
            words, env=environment, cwd=where, input=sent, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("_CONDOR_")}
        path = f"{kept.get('PATH', '')}:/usr/bin:/usr/sbin"
        return kept | {"CONDOR_CONFIG": str(self._configuration), "PATH": path, "USER": self._user.pw_name}

    def _lines(self, slots: Sequence[Attributes], settings: Mapping[str, str]) -> Iterator[str]:
        self._slot_count = len(slots)
        sockets = str(self.folder / "sockets")
        own = {
            "LOCAL_DIR": str(self.folder),
            "DAEMON_SOCKET_DIR": sockets if len(sockets) <= _LONGEST_SOCKET_FOLDER else "auto",
            "SHARED_PORT_PORT": str(_free_port()),
            "POOL_DOMAIN": _DOMAIN,
            "POOL_USER": self._user.pw_name,
            "SLOTS": str(len(slots)),
            "STARTD_ATTRS": ", ".join(sorted({name for attributes in slots for name in attributes})),
        }
        for number, attributes in enumerate(slots, 1):  # a ClassAd writes texts, numbers and truth as JSON does
            own |= {f"SLOT{number}_{name}": json.dumps(value) for name, value in attributes.items()}
        return (f"{name} = {value}\n" for name, value in {**own, **settings}.items())


@contextmanager
def running_pool(
    folder: Path, *, slots: Sequence[Attributes], claim_life_s: float = 60, settings: Mapping[str, str] | None = None
) -> Iterator[CondorPool]:
    """Start a pool in a new folder, and end it with all its processes; skip the test where it cannot be.

    Each slot has its attributes. Jobs of one owner follow each other at a slot, unmatched, for `claim_life_s`. `settings` are
    those of HTCondor's configuration.
    """
    if not shutil.which("condor_master", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        pytest.skip("HTCondor is not installed: apt-get install --no-install-recommends condor")
    if os.geteuid() == 0 and subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode:
        pytest.skip("HTCondor takes no jobs of root, and this machine lets root make no user namespace")
    pool = CondorPool(folder.absolute(), slots, {"CLAIM_WORKLIFE": f"{claim_life_s:.0f}", **(settings or {})})
    try:
        pool.start()
        yield pool
    finally:
        pool.stop()


def processes_under(pid: int) -> list[Process]:
    """Return a process and all its descendants, those of other namespaces too."""
    every = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            program = (entry / "cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
            every[int(entry.name)] = Process(
                pid=int(entry.name),
                parent=int(fields[1]),
                name=Path(program).name,
                rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
                cpu_s=sum(map(int, fields[11:15])) / _TICKS_PER_S,
            )
    children: dict[int, list[int]] = {}
    for process in every.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, waiting = [], [pid]
    while waiting:
        next_pid = waiting.pop()
        if next_pid in every:
            found.append(every[next_pid])
            waiting += children.get(next_pid, [])
    return found


def _chosen(attributes: Sequence[str]) -> list[str]:
    return ["-attributes", ",".join(attributes)] if attributes else []


def _ads(text: str) -> list[dict[str, Any]]:
    """Read what a tool prints: nothing at all, not an empty list, where there is nothing."""
    ads: list[dict[str, Any]] = json.loads(text) if text.strip() else []
    return ads


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
