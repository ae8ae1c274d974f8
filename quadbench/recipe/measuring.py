"""Measuring in a recipe: state of the device at the start, threads and memory of the runtime, and order of the tasks."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from quadbench.errors import UserError, shown
from quadbench.spec import NAME_EXPECTED, Name, Spec, is_name, read_file
from quadbench.spec.spec_model import beside

Core = Annotated[int, Field(ge=0, le=1023)]

MOST_SWITCHES = 10_000
_MOST_BYTES = 2**20  # of a trace: MOST_SWITCHES of the longest names, and as much again for comments


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


def _differ(cores: tuple[int, ...]) -> tuple[int, ...]:
    twice = [core for core, count in Counter(cores).items() if count > 1]
    if twice:
        raise ValueError(f"core {twice[0]} stands more than once")
    return cores


class Runtime(Spec):
    """The threads on which a device computes, and what it keeps in memory."""

    threads: int = Field(default=2, ge=1, le=64)
    """The number of threads of the device's CPU on which an operator runs, 1 to 64. The default is 2."""
    cores: Annotated[tuple[Core, ...], AfterValidator(_differ)] = Field(default=(), max_length=64)
    """The numbers of the cores on which the harness may run, as `taskset -c` takes them. The default is none named: any core."""
    thread_pool: Literal["shared", "session"] = "shared"
    """`shared`: all graphs compute on the same threads; `session`: each has threads of its own. The default is shared."""
    arena: Literal["none", "session", "shared"] = "none"
    """The memory that is kept for the next run instead of given back: `none`; `session`, by each graph for itself; `shared`, by
    all together. An arena makes the peak higher. The default is none."""
    preload: Literal["none", "next", "all"] = "none"
    """The adapters that are read before their task begins: `none`; `next`, the next task's while one runs; `all`, before the
    first task, as many as the cache holds. The default is none."""
    adapter_cache_mb: int = Field(default=512, ge=1, le=1_048_576)
    """The most memory, in units of 2^20 bytes, 1 to 1048576, that adapters may hold; the least recently used one goes first, the
    running one never. The default is 512."""
    memory_budget_mb: int | None = Field(default=None, ge=1, le=1_048_576)
    """The memory, in units of 2^20 bytes, 1 to 1048576, that loaded graphs may hold. Where it does not suffice, text encoder and
    VAE are unloaded, and loaded again when they are needed; the U-Net stays. The default is null: everything stays loaded."""


def _from_trace(value: Any, info: ValidationInfo) -> Any:
    """Read a path as the trace that lies there; anything else stays for the list's own validation."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    path = beside(Path(value), info)
    try:
        lines = read_file(path, fault=UserError, most_bytes=_MOST_BYTES).decode("utf-8-sig").splitlines()
    except (UserError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a trace of task names: {error}") from error
    names = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")}
    for number, name in names.items():
        if not is_name(name):
            raise ValueError(f"expected {NAME_EXPECTED} in line {number} of '{path}', found {shown(name)}")
    if not names:
        raise ValueError(f"expected a trace of task names, found none in '{path}'")
    return tuple(names.values())


TaskSequence = Annotated[
    tuple[Name, ...],
    Field(max_length=MOST_SWITCHES),
    BeforeValidator(_from_trace, json_schema_input_type=tuple[Name, ...] | str),
]
