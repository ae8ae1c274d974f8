"""Wait for a device that was lost during a run, and check that the same device comes back."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from quadbench.artifacts import Retry
from quadbench.artifacts.safe_text import one_line
from quadbench.devices import Device
from quadbench.errors import DeviceError, DeviceLostError
from quadbench.measure.launch import StopFlag
from quadbench.observer import Observer

_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 30.0
_IDENTITY = ("ro.serialno", "ro.build.fingerprint", "ro.product.model", "ro.soc.model")  # a profile is recognised by these

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """The policy for devices lost during a run: the most retries per device, and the most seconds to wait after each loss.

    `confirm` raises if the device's lease is no longer ours. `note` is called for each device that came back.
    """

    retries: int
    wait_s: float
    confirm: Callable[[Device], None]
    note: Callable[[Device, Retry], None]
    observer: Observer
    stop: StopFlag = field(default_factory=StopFlag)
    _lost: Counter[str] = field(default_factory=Counter)
    _identities: dict[str, dict[str, str]] = field(default_factory=dict)

    def retry(self, device: Device, action: Callable[[], ResultT]) -> ResultT:
        """Return an idempotent action's result. If the device is lost, wait and repeat, at most `retries` times per device.

        Raises:
            DeviceLostError: the device was not back in time, or was lost too often.
            QuadbenchError: the device is another one now, its lease is no longer ours, or `action` raised.
        """
        while True:
            try:
                if device.facts.address not in self._identities:
                    self._identities[device.facts.address] = _identity(device)
                return action()
            except DeviceLostError as lost:
                if not lost.transient:
                    raise
                self._wait(device, lost)

    def recover(self, device: Device, lost: DeviceLostError, action: Callable[[], object]) -> None:
        """Wait until a lost device is back, then run `action`, for example to reinstall a bundle. Raise if the device stays away.

        Raises:
            QuadbenchError: as `retry`.
        """
        if not lost.transient:
            raise lost
        self._wait(device, lost)
        self.retry(device, action)

    def _wait(self, device: Device, lost: DeviceLostError) -> None:
        address = device.facts.address
        self._lost[address] += 1
        if self._lost[address] > self.retries:
            times = f"{self.retries} retries" if self.retries != 1 else "1 retry"
            raise DeviceLostError(f"{lost.message}; quadbench gave up after {times}", hint=lost.hint) from lost
        self.observer.device_lost(address, lost.message, self.wait_s)
        began, pause_s = time.monotonic(), _FIRST_PAUSE_S
        with self.stop.calling_on_request(device.close):
            while not self._is_back(device):
                left_s = began + self.wait_s - time.monotonic()
                if left_s <= 0 or self.stop.wait(min(pause_s, left_s)):
                    raise DeviceLostError(f"{lost.message}; quadbench waited {self.wait_s:g} s", hint=lost.hint) from lost
                pause_s = min(2 * pause_s, _MAX_PAUSE_S)
        away_s = time.monotonic() - began
        self.observer.device_back(address, away_s)
        self.note(device, Retry(address=address, reason=lost.message, away_s=away_s))

    def _is_back(self, device: Device) -> bool:
        """Return True if a lost device has booted, False if not yet. Raise if another phone answers or the run's lease ended."""
        try:
            if not device.is_ready():
                return False
            self._require_same(device)
            self.confirm(device)
        except DeviceLostError as again:
            if not again.transient:
                raise
            return False
        return True

    def _require_same(self, device: Device) -> None:
        address, now = device.facts.address, _identity(device)
        for name, before in self._identities.get(address, {}).items():
            if now.get(name) != before:
                raise DeviceError(
                    f"'{address}' is now another phone or has another build: {name} is {now.get(name)}, was {before}"
                )


def _identity(device: Device) -> dict[str, str]:
    properties = device.properties()
    return {name: one_line(properties[name]) for name in _IDENTITY if name in properties}
