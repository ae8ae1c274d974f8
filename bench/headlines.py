"""Simulated runs -> how often a report's first sentence claims a difference that is not there, and how often one that is.

python bench/headlines.py --reports 2000
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.simulated_reports import NOUNS, OPPONENTS, Claims, Setting, claims_of, simulated_rows

from quadbench.statistics.launch_comparison import share_interval

TASKS, DEVICES, LAUNCHES, NOISE = (1, 2, 6, 10), (1, 3), (2, 3, 4, 6, 8, 12, 24, 40), (0.01, 0.03, 0.06)
FEW = (2, 4, 6, 8, 12)


def simulated(setting: Setting, reports: int) -> list[Claims]:
    """Return what so many reports of a setting claim, which are the same each time; none may contradict its own verdicts."""
    rng = np.random.default_rng(list(str(setting).encode()))
    claims = [claims_of(simulated_rows(setting, rng)) for _ in range(reports)]
    for one in claims:
        if one.disagreement:
            raise SystemExit(f"a sentence contradicts a verdict: {one.disagreement}")
    return claims


def line(cells: Sequence[object]) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)  # noqa: T201


def heading(title: str, columns: Sequence[object]) -> None:
    print(f"\n{title}\n", flush=True)  # noqa: T201
    line(columns)
    line(["---"] * len(columns))


def share(count: int, reports: int) -> str:
    """Write a share with the upper end of its interval at 95 %."""
    return f"{count / reports:.1%} (≤ {share_interval(count, reports)[1]:.1%})".replace("%", " %")


def equal_sides(reports: int) -> None:
    """Print how often the first sentence claims anything where nothing differs, and conditions are called unequal."""
    found, unequal, runs = (Counter[tuple[float, int]]() for _ in range(3))
    for noise in reversed(NOISE):
        heading(f"Equal sides, noise of a launch {noise:.0%}", ("tasks", "devices", "reports", *LAUNCHES))
        for tasks, devices in product(TASKS, DEVICES):
            count, cells = int(reports * noise / max(NOISE) * 3 / max(3, tasks * devices)), []
            for launches in LAUNCHES:
                claims = simulated(Setting(tasks=tasks, devices=devices, launches=launches, noise=noise), count)
                cells.append(share(sum(one.any for one in claims), count))
                runs[noise, launches] += count
                found[noise, launches] += sum(one.any for one in claims)
                unequal[noise, launches] += sum(one.is_unequal for one in claims)
            line((tasks, devices, count, *cells))
    for title, counts in (("Equal sides, all numbers of tasks and devices", found), ("Called unequal conditions", unequal)):
        heading(title, ("noise", *LAUNCHES))
        for noise in NOISE:
            line((f"{noise:.0%}", *(share(counts[noise, launches], runs[noise, launches]) for launches in LAUNCHES)))


def opponents(reports: int) -> None:
    """Print the same for noise that is not independent and normal."""
    for noise in NOISE[1:]:
        heading(f"Equal sides, two tasks, noise of {noise:.0%}", ("kind", *LAUNCHES))
        for kind in OPPONENTS:
            settings = (Setting(tasks=2, launches=launches, noise=noise, kind=kind) for launches in LAUNCHES)
            line((kind, *(share(sum(one.any for one in simulated(setting, reports)), reports) for setting in settings)))


def power(reports: int) -> None:
    """Print how often the first sentence says that an image takes more time where it does."""
    columns = ("image slower by", "tasks", "devices", "noise", *FEW)
    heading("An image is slower on the shared graph, in all tasks, and a switch faster; the sentence says so", columns)
    for truth, tasks, devices, noise in product((0.05, 0.08, 0.2, 0.3, 0.5), (1, 2), (1, 2), NOISE[1:]):
        line((f"{truth:.0%}", tasks, devices, f"{noise:.0%}", *_found(truth, tasks, devices, noise, reports)))
    heading("Files that both run take longer on the shared side: called unequal conditions", ("slower by", "noise", *FEW))
    for truth, noise in product((0.1, 0.2, 0.5), NOISE):
        settings = (Setting(tasks=2, launches=launches, noise=noise, truth={"vae_decoder": truth}) for launches in FEW)
        counts = (sum(one.is_unequal for one in simulated(setting, reports)) for setting in settings)
        line((f"{truth:.0%}", f"{noise:.0%}", *(f"{count / reports:.0%}" for count in counts)))


def _found(truth: float, tasks: int, devices: int, noise: float, reports: int) -> Iterator[str]:
    for launches in FEW:
        of = {"end_to_end": truth, "switch": -0.999, "first_image": truth - 0.1}
        claims = simulated(Setting(tasks=tasks, devices=devices, launches=launches, noise=noise, truth=of), reports)
        yield f"{sum(1 in one.first['end_to_end'] for one in claims) / reports:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=int, default=2000, help="of each case; of little noise and of many rows fewer")
    parser.add_argument("--part", choices=("equal", "opponents", "power"), nargs="+", default=("equal", "opponents", "power"))
    options = parser.parse_args()
    print(f"Claims of {', '.join(NOUNS)} count.")  # noqa: T201
    if "equal" in options.part:
        equal_sides(options.reports)
    if "opponents" in options.part:
        opponents(options.reports)
    if "power" in options.part:
        power(options.reports)


if __name__ == "__main__":
    main()
