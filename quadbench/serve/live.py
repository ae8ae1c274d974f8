"""Live: a part of a page that changes -> server-sent events, each the part as it is now, for as long as somebody looks."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response, StreamingResponse

MOST_VIEWERS = 100
_PERIOD_S = 2.0
_SIGN_OF_LIFE_S = 15.0  # after which proxies and browsers take a silent connection for lost
_LONGEST_S = 3600.0  # then the browser asks again


class Live:
    """The events of all viewers, of whom there may be so many at once."""

    def __init__(self, most: int = MOST_VIEWERS) -> None:
        self._left = most

    def events(self, part: Callable[[], str | None]) -> Response:
        """Return the answer that sends a part of a page whenever it is another one, and ends once there is none any more."""
        if self._left <= 0:
            return PlainTextResponse("too many look at this; reload the page by hand", 503, {"retry-after": "30"})
        return StreamingResponse(self._sent(part), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def _sent(self, part: Callable[[], str | None]) -> AsyncIterator[str]:
        with self._counted():
            clock = asyncio.get_running_loop().time
            begun, sent_at, sent = clock(), 0.0, ""
            while clock() - begun < _LONGEST_S:
                now = await run_in_threadpool(part)
                if now is None:
                    yield "event: over\ndata:\n\n"
                    return
                if now != sent:
                    yield "".join(f"data: {line}\n" for line in now.splitlines()) + "\n"
                    sent, sent_at = now, clock()
                elif clock() - sent_at > _SIGN_OF_LIFE_S:
                    yield ": \n\n"
                    sent_at = clock()
                await asyncio.sleep(_PERIOD_S)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1
