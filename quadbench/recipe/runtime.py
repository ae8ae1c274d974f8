"""Runtime: with which threads and how much memory a device runs the graphs."""

from collections import Counter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from quadbench.spec import Spec


def _differ(cores: tuple[int, ...]) -> tuple[int, ...]:
    twice = [core for core, count in Counter(cores).items() if count > 1]
    if twice:
        raise ValueError(f"core {twice[0]} stands more than once")
    return cores


Core = Annotated[int, Field(ge=0, le=1023)]


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
