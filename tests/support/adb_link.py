"""adb link: a real adb server -> the same one at another address, whose connections can be cut, held up and made anew."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from quadbench.devices import Device
from quadbench.devices.adb_protocol import UnixEndpoint
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.results.layout import Layout

BOOT = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
OTHER_BOOT = b"0" * len(BOOT)


class Link:
    """The way to a server. `port` is where it is reached; the methods do to all connections what cables and phones do."""

    def __init__(self, server: UnixEndpoint) -> None:
        self.cuts = 0
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._is_cut, self._is_other_boot = threading.Event(), threading.Event()
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._fuse: tuple[bytes, bool] | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and every new one until `mend`."""
        self.cuts += 1
        self._is_cut.set()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def cut_at(self, words: bytes, *, after: bool) -> None:
        """Cut once, when these words come by, from either side: when they have gone on, or before."""
        self._fuse = words, after

    def mend(self) -> None:
        self._is_cut.clear()
        self._goes_on.set()

    def hold(self) -> None:
        """Let nothing through any more, and break nothing: a phone that went out of its network's reach."""
        self._goes_on.clear()

    def reboot(self) -> None:
        """Have the phone come back as one that has booted anew."""
        self._is_other_boot.set()

    def close(self) -> None:
        self.cut()
        self.mend()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._is_cut.is_set():
                    near.close()
                    continue
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with near, self._server.connect() as far:
            far.settimeout(None)
            self._open += [near, far]
            there = threading.Thread(target=self._forward, args=(near, far), daemon=True)
            there.start()
            self._forward(far, near)
            there.join()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._goes_on.wait()
                fuse = self._fuse if self._fuse and self._fuse[0] in data else None
                if fuse:
                    self._fuse = None
                if not fuse or fuse[1]:
                    target.sendall(data.replace(BOOT, OTHER_BOOT) if self._is_other_boot.is_set() else data)
                if fuse:
                    self.cut()
        for end in (source, target):  # adb closes a connection as a whole
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def link_to(results: Path, profile: str) -> Iterator[Link]:
    """Yield a link to the server of a virtual device that runs."""
    link = Link(UnixEndpoint(path=results / "devices" / f"virtual-{profile}" / "system" / "run" / "adb.sock"))
    try:
        yield link
    finally:
        link.close()


@dataclass
class Phone:
    """A phone as a user has it: quadbench reaches it through a link, the test beside it."""

    device: Device
    link: Link
    beside: Device

    @property
    def folder(self) -> str:
        return f"{self.device.root}/stream"

    def lines(self, argv: list[str], timeout_s: float = 60) -> Iterator[str]:
        return self.device.stream(argv, timeout_s, self.folder)

    def later(self, *steps: tuple[float, Callable[[], None]]) -> None:
        def run() -> None:
            for after_s, step in steps:
                time.sleep(after_s)
                step()

        threading.Thread(target=run, daemon=True).start()


@contextlib.contextmanager
def linked_phone(results: Path, patch: pytest.MonkeyPatch) -> Iterator[Phone]:
    """Yield a phone at the other end of a link, to which the environment points as to a user's server."""
    layout = Layout(results)
    with connect(parse_addresses(["virtual:s25"]), layout=layout) as (beside,), link_to(results, "s25") as link:
        patch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{link.port}")
        with connect(parse_addresses(["s25"]), layout=layout) as (device,):
            yield Phone(device=device, link=link, beside=beside)


def restart_adbd(device: Device, *, after_s: float, away_s: float) -> None:
    """Have a virtual device's adbd killed, and started again later: every connection to it breaks."""
    script = f"sleep {after_s}; pkill -KILL adbd; sleep {away_s}; exec adbd"
    device.shell(["sh", "-c", 'setsid sh -c "$1" </dev/null >/dev/null 2>&1 &', "sh", script], 10)
