"""Fake adb: an adb server that speaks adb's protocol, and answers some services with whatever a test wants, byte by byte too."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

DRIP_S = 0.05  # between two bytes of a dripping answer


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The bytes that follow a service's `status`. A dripping one sends them one by one and never ends in a test's time."""

    content: bytes
    drips: bool = False
    status: bytes = b"OKAY"


def text(content: str) -> bytes:
    """Return a string as the server sends it, after its length."""
    data = content.encode()
    return f"{len(data):04x}".encode() + data


def packet(kind: int, content: bytes) -> bytes:
    """Return a packet of adb's shell protocol: 1 is stdout, 3 the exit code."""
    return bytes([kind]) + len(content).to_bytes(4, "little") + content


class FakeAdb:
    """A server on a free port. `answers` are by how a service begins; the longest beginning that fits counts."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = {"host:version": Answer(content=text("0029")), "host:transport:": Answer(content=b""), **answers}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_over = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        self.most_at_once = 0  # services that were answered at one time, not counting the server's own
        self._at_once, self._lock = 0, threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._is_over.set()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(near,), daemon=True).start()

    def _answer(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError, ValueError):
            while True:
                service = near.recv(int(near.recv(4, socket.MSG_WAITALL), 16), socket.MSG_WAITALL).decode()
                fitting = [beginning for beginning in self.answers if service.startswith(beginning)]
                if not fitting:
                    near.sendall(b"FAIL" + text(f"unknown service {service}"))
                    return
                answer = self.answers[max(fitting, key=len)]
                near.sendall(answer.status)
                with self._counted(service):
                    self._send(near, answer)
                if not service.startswith("host:transport:"):
                    return

    def _send(self, near: socket.socket, answer: Answer) -> None:
        if not answer.drips:
            near.sendall(answer.content)
            return
        for byte in answer.content:
            near.sendall(bytes([byte]))
            if self._is_over.wait(DRIP_S):
                return

    @contextlib.contextmanager
    def _counted(self, service: str) -> Iterator[None]:
        if service.startswith("host:"):
            yield
            return
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(DRIP_S)
        with self._lock:  # before the answer: whoever has it may ask again before this thread goes on
            self._at_once -= 1
        yield
