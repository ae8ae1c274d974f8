"""Simulated series of nights -> how often the detector of shifts alarms where nothing changed, and when it sees what did.

python bench/shifts.py --series 1000
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quadbench.statistics.change_points import shifts
from quadbench.statistics.launch_comparison import share_interval

NIGHTS, STEP_AT, NEAR = 60, 30, 3
STEPS = (0.0, 0.03, 0.05, 0.08)
Series = NDArray[np.float64]


def quiet(rng: np.random.Generator) -> Series:
    """Noise of 1 %."""
    return rng.normal(1, 0.01, NIGHTS)


def noisy(rng: np.random.Generator) -> Series:
    """Noise of 3 %."""
    return rng.normal(1, 0.03, NIGHTS)


def far_values(rng: np.random.Generator) -> Series:
    """Noise of 1 % with heavy tails: Student's t with 3 degrees of freedom."""
    return 1 + 0.01 * rng.standard_t(3, NIGHTS)


def bad_nights(rng: np.random.Generator) -> Series:
    """Noise of 1 %, and every tenth night 20 % slower."""
    return rng.normal(1, 0.01, NIGHTS) * np.where(rng.random(NIGHTS) < 0.1, 1.2, 1.0)


def drift(rng: np.random.Generator) -> Series:
    """Noise of 1 %, and 0.05 % more each night."""
    return rng.normal(1, 0.01, NIGHTS) * 1.0005 ** np.arange(NIGHTS)


def two_modes(rng: np.random.Generator) -> Series:
    """Noise of 1 %, and 10 % slower for about five nights in a row, then not."""
    slow = np.cumsum(rng.random(NIGHTS) < 0.2) % 2 == 1
    return rng.normal(1, 0.01, NIGHTS) * np.where(slow, 1.1, 1.0)


KINDS: tuple[Callable[[np.random.Generator], Series], ...] = (quiet, noisy, far_values, bad_nights, drift, two_modes)


def delay(series: Series) -> int | None:
    """Return after how many nights of the step it is seen, looking every night; None where it is not within the series."""
    for night in range(STEP_AT + 1, NIGHTS + 1):
        if any(abs(shift.at - STEP_AT) <= NEAR for shift in shifts(series[:night].tolist())):
            return night - STEP_AT
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=1000)
    options = parser.parse_args()
    print("| series | step | seen | median delay | other shifts |\n|---|---|---|---|---|")  # noqa: T201
    for kind in KINDS:
        for step in STEPS:
            rng, delays, alarms = np.random.default_rng(0), [], 0
            for _ in range(options.series):
                series = kind(rng) * np.where(np.arange(NIGHTS) >= STEP_AT, 1 + step, 1.0)
                told = [shift.at for shift in shifts(series.tolist())]
                alarms += any(abs(at - STEP_AT) > NEAR for at in told) if step else bool(told)
                if step and any(abs(at - STEP_AT) <= NEAR for at in told):
                    delays.append(delay(series))
            print(f"| {kind.__name__.replace('_', ' ')} | {step:.0%} | {_row(delays, alarms, options.series, step)} |")  # noqa: T201


def _row(delays: list[int | None], alarms: int, series: int, step: float) -> str:
    seen, other = (_share(count, series) for count in (len(delays), alarms))
    times = [one for one in delays if one is not None]
    return f"{seen if step else '–'} | {f'{np.median(times):.0f} nights' if times else '–'} | {other}"


def _share(count: int, of: int) -> str:
    low, high = share_interval(count, of)
    return f"{count / of:.1%} ({low:.1%} to {high:.1%})"


if __name__ == "__main__":
    main()
