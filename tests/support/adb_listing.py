"""adb listing: words of `adb devices -l` -> a server at a port of this machine that says them, and knows nothing else."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

VERSION = "0029"  # of adb's protocol, in hexadecimal


@contextmanager
def listing_server(words: str) -> Iterator[int]:
    """Yield the port of a server that lists devices so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, words), daemon=True).start()
        yield listener.getsockname()[1]


def _serve(listener: socket.socket, words: str) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # it is closed
            return
        with connection, connection.makefile("rwb") as stream:
            asked = stream.read(int(stream.read(4), 16))
            answer = VERSION if asked == b"host:version" else words
            stream.write(f"OKAY{len(answer):04x}{answer}".encode())
