"""Stop: the first Ctrl-C asks for the end and says what the second does; both end as an interrupt."""

import os
import signal
import threading
import time

import pytest
from support.sentences import says

from quadbench.measure.launch import StopFlag, stop_on_ctrl_c


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def pressed(times: int) -> tuple[StopFlag, bool]:
    """Press Ctrl-C while something runs; return whether it came to its end."""
    stop, ends = StopFlag(), list[bool]()

    def work() -> None:
        with stop_on_ctrl_c(stop):
            press()
            assert stop.wait(10)
            if times == 2:
                press()
                time.sleep(10)
            ends.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    return stop, bool(ends)


def test_the_first_ctrl_c_asks_and_what_runs_comes_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    stop, has_ended = pressed(1)
    assert has_ended
    assert not stop.is_cut_off
    says(caplog.text)


def test_the_second_ctrl_c_interrupts_at_once() -> None:
    _, has_ended = pressed(2)
    assert not has_ended


def test_ctrl_c_means_afterwards_what_it_meant_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_ctrl_c(StopFlag()):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_that_was_turned_off_stays_off() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_ctrl_c(StopFlag()):
            press()
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_sets_no_signal() -> None:
    handlers: list[object] = []

    def work() -> None:
        with stop_on_ctrl_c(StopFlag()):
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def test_what_only_waits_is_ended_where_the_end_is_asked_for_before_or_meanwhile() -> None:
    stop, ended = StopFlag(), list[str]()
    with stop.calling_on_request(lambda: ended.append("meanwhile")):
        stop.request()
    with stop.calling_on_request(lambda: ended.append("before")):
        pass
    assert ended == ["meanwhile", "before"]
    assert stop.wait(60)
