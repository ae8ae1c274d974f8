"""Chat: a web server on loopback that takes what is posted, as a chat's webhook does."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Chat:
    """What was posted, and what is answered: a status, with a place where it leads elsewhere."""

    address: str
    posted: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    elsewhere: str | None = None


@contextmanager
def running_chat() -> Iterator[Chat]:
    """Run the server for as long as the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            chat.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(chat.status)
            if chat.elsewhere:
                self.send_header("Location", chat.elsewhere)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        chat = Chat(address=f"http://127.0.0.1:{server.server_port}/services/T0/B0/secret")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield chat
        finally:
            server.shutdown()
            thread.join()
