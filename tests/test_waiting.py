"""A device that another process has: who asks to wait gets it once it is free."""

import threading
from pathlib import Path

from support.sentences import raising
from support.watcher import Silent

from quadbench.cli.device_options import retry_when_free
from quadbench.devices.local import open_local
from quadbench.errors import DeviceInUseError
from quadbench.results.layout import Layout


def _opened(layout: Layout) -> str:
    with open_local(layout) as device:
        return device.facts.address


def test_who_waits_gets_the_device_once_it_is_free(tmp_path: Path) -> None:
    layout, pauses, is_held, may_end = Layout(tmp_path), list[float](), threading.Event(), threading.Event()

    def hold() -> None:
        with open_local(layout):
            is_held.set()
            may_end.wait(30)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        may_end.set()
        holder.join()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait(30)
    with raising(DeviceInUseError, "local"):
        retry_when_free(lambda: _opened(layout), Silent(), waits=False)
    assert retry_when_free(lambda: _opened(layout), Silent(), waits=True, pause=pause) == "local"
    assert len(pauses) == 1
