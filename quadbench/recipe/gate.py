"""Gate: the state that a device must be in before and after a launch."""

from pydantic import Field

from quadbench.spec import Spec


class Gate(Spec):
    """The limits of a device's state. What a device does not tell is not held against it.

    Before a launch the gate waits for them, and skips the launch if they are not met in time. A launch after which the device is
    too hot or slowed down is discarded, and its block of launches, of all variants alike, is repeated.
    """

    max_thermal_status: int = Field(default=1, ge=0, le=6)
    """The highest of Android's thermal statuses, 0 (none) to 6 (shutdown); 2 (moderate) is the first that slows the app in front.
    The default is 1."""
    max_skin_c: float | None = Field(default=None, ge=0, le=150)
    """The highest temperature of the skin's sensors, 0 to 150 degrees Celsius. The default is null: the status decides."""
    allows_throttled: bool = False
    """A CPU or NPU that is slowed down, or clocks that are capped, are a caveat and no reason to wait. The default is false."""
    min_battery_percent: float = Field(default=20.0, ge=0, le=100)
    """The lowest charge of the battery, 0 to 100. The default is 20."""
    max_busy_percent: float | None = Field(default=None, ge=0, le=100)
    """The share of the CPU's time, 0 to 100, that others may take. The default is null: 50 on a phone; where this machine's CPU
    is shared there is no limit, since on a build host something always runs, but a caveat."""
    min_free_mb: int = Field(default=256, ge=0, le=1_048_576)
    """The least memory that is available, in units of 2^20 bytes, 0 to 1048576. The default is 256."""
    wait_s: float = Field(default=600.0, ge=0, le=86_400)
    """The time in seconds, up to 86400, a day, for which the gate waits. The default is 600."""
    retries: int = Field(default=2, ge=0, le=100)
    """The number of blocks, 0 to 100, that a device may repeat in a run; after that, and with `order: sequential`, which has no
    blocks, a launch counts with its caveat. The default is 2."""
