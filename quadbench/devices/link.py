"""Link: an adb server's socket -> another one before it that counts what is sent to the device, and carries it only so fast."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from quadbench.artifacts import MIB
from quadbench.devices.adb_protocol import Endpoint, UnixEndpoint

_PIECE_BYTES = 65_536
_PATIENCE_S = 5.0


class Link:
    """A socket that passes everything on, in both directions, at most at `mb_per_s` MiB a second in each."""

    def __init__(self, behind: Endpoint, mb_per_s: float | None) -> None:
        self.sent_bytes = 0
        self._behind, self._mb_per_s = behind, mb_per_s
        self._lock = threading.Lock()
        self._free_at = {"sent": 0.0, "received": 0.0}  # when the link is free again, for each direction

    @contextlib.contextmanager
    def listening(self, path: Path) -> Iterator[UnixEndpoint]:
        """Pass on what comes to a new socket at `path`, until the end."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        with listener:
            try:
                listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # the whole path may be too long for a socket's address
            finally:
                os.close(folder)
            listener.listen()
            thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
            thread.start()
            try:
                yield UnixEndpoint(path=path)
            finally:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                thread.join(_PATIENCE_S)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        """Pass a connection on, until either of its ends closes."""
        with near, contextlib.suppress(OSError), self._behind.connect() as far:
            far.settimeout(None)
            back = threading.Thread(target=self._pump, args=(far, near, "received"), daemon=True)
            back.start()
            self._pump(near, far, "sent")
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        """Pass on one direction. Its end is passed on too; where the other end takes nothing any more, both are closed."""
        try:
            while piece := source.recv(_PIECE_BYTES):
                self._wait(len(piece), direction)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _wait(self, size: int, direction: str) -> None:
        with self._lock:
            if direction == "sent":
                self.sent_bytes += size
            if self._mb_per_s is None:
                return
            now = time.monotonic()
            free_at = max(now, self._free_at[direction]) + size / (self._mb_per_s * MIB)
            self._free_at[direction] = free_at
        time.sleep(max(0.0, free_at - now))
