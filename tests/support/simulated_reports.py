"""Simulated reports: a truth, noise, and numbers of tasks, devices and launches -> a run's rows, and what its headline claims."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from quadbench.measure.launch_schedule import random_blocks
from quadbench.report.formatting import Unit
from quadbench.report.headline import headline, plain_text
from quadbench.report.kpi import Figure, KpiRow, judged_rows
from quadbench.statistics import LAUNCHES_PER_BLOCK, Verdict
from support.synthetic_run import S25

LEVELS = {"end_to_end": 3e8, "switch": 4e7, "first_image": 3.4e8, "peak_ram": 8e7, "vae_decoder": 5e7}
NOUNS = {"end_to_end": "time for an image", "switch": "time to switch tasks", "peak_ram": "memory"}
OPPONENTS = ("shared", "heavy tails", "spikes", "neighbours", "drift", "period", "slow spells")
Noise = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is simulated. `noise` is the deviation of a launch's logarithm, `truth` by how much more the shared graph takes."""

    tasks: int = 1
    devices: int = 1
    launches: int = 2
    noise: float = 0.03
    kind: str = "independent"
    truth: dict[str, float] = field(default_factory=dict)


def simulated_rows(setting: Setting, rng: np.random.Generator) -> tuple[KpiRow, ...]:
    """Return the judged rows of one run whose launches were in turn; of an odd number of launches the last has no whole block."""
    return judged_rows(row for device in range(setting.devices) for row in _rows_of_device(setting, device, rng))


def _rows_of_device(setting: Setting, device: int, rng: np.random.Generator) -> Iterator[KpiRow]:
    blocks = setting.launches // LAUNCHES_PER_BLOCK
    order = np.array([side == "B" for block in islice(random_blocks("AB", str(rng.random())), blocks) for side in block])
    keys = [key for key in LEVELS if setting.tasks > 1 or key not in ("switch", "first_image")]
    logs = noise_of(setting.kind, setting.noise, setting.tasks * len(keys), order.size, rng)
    facts = replace(S25, address=f"virtual:s25@{device}", serial=str(device))
    levels = np.array([LEVELS[key] * np.exp(order * np.log1p(setting.truth.get(key, 0.0))) for key in keys])
    values = np.exp(logs) * np.tile(levels, (setting.tasks, 1))
    sides = [_figures(values[:, order == side]) for side in (False, True)]
    for number, (per_graph, shared) in enumerate(zip(*sides, strict=True)):
        key = keys[number % len(keys)]
        yield KpiRow(
            device=facts,
            task=f"task{number // len(keys)}",
            key=key,
            title=key,
            unit=Unit.MEGABYTES if key == "peak_ram" else Unit.MILLISECONDS,
            is_exact=False,
            shared=shared,
            per_graph=per_graph,
            ratio=per_graph.value / shared.value,
            published=None,
            caveats=(),
            blocks=blocks,
        )


def noise_of(kind: str, size: float, rows: int, launches: int, rng: np.random.Generator) -> Noise:
    """Return noise on the logarithm (rows, launches) in the order in which launches run."""
    own = rng.normal(0, size, (rows, launches))
    times = np.arange(launches)
    match kind:
        case "independent":
            return own
        case "shared":  # two thirds of the variance are of the launch, alike in all tasks and figures
            return np.sqrt(1 / 3) * own + np.sqrt(2 / 3) * rng.normal(0, size, (1, launches))
        case "heavy tails":  # Student's t with 3 degrees of freedom
            return rng.standard_t(3, (rows, launches)) * size / np.sqrt(3)
        case "spikes":  # one launch in ten is 30 % slower in everything
            return own / 2 + 0.3 * (rng.random((1, launches)) < 0.1)
        case "neighbours":  # launches that follow each other correlate by a half
            for launch in range(1, launches):
                own[:, launch] = 0.5 * own[:, launch - 1] + np.sqrt(0.75) * own[:, launch]
            return own
        case "drift":  # each launch is slower by 2 %
            return own + 0.02 * times
        case "period":  # a disturbance of 2 % that recurs every four launches
            return own + 0.02 * np.sin(2 * np.pi * (times + 4 * rng.random()) / 4)
        case "slow spells":  # in every other run two to six launches in a row are 10 % slower
            start, length = rng.integers(launches), rng.integers(2, 7) * rng.integers(2)
            return own + 0.1 * ((times >= start) & (times < start + length))
        case _:
            raise ValueError(f"unknown noise {kind}")


def _figures(medians: Noise) -> list[Figure]:
    """Return the figure of each row of launches' medians (rows, launches)."""
    places = zip(medians.tolist(), np.median(medians, axis=1).tolist(), strict=True)
    count = medians.shape[1]
    return [
        Figure(
            value=value,
            low=value,
            high=value,
            mad=0.0,
            launches=count,
            samples=count,
            outliers=0,
            p90=None,
            medians=tuple(row),
        )
        for row, value in places
    ]


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What the first sentence of a report claims of each figure (-1 less, 1 more), and whether a row contradicts a sentence."""

    first: dict[str, set[int]]
    disagreement: str | None
    is_unequal: bool

    @property
    def any(self) -> bool:
        """Say whether it claims a difference of time, switch or memory."""
        return any(self.first.values())


def claims_of(rows: Sequence[KpiRow]) -> Claims:
    """Return what the headline makes of rows."""
    sentences = [plain_text([sentence]) for sentence in headline((), rows, ())]
    first = sentences[0] if "one base with LoRAs takes" in sentences[0] else ""
    signs = {"less": -1, "more": 1}
    claimed = {key: {sign for word, sign in signs.items() if f"{word} {noun}" in first} for key, noun in NOUNS.items()}
    is_unequal = any(row.is_same_file and row.claim in (Verdict.BETTER, Verdict.WORSE) for row in rows)
    return Claims(
        first=claimed, disagreement=None if is_unequal else _disagreement(rows, claimed, sentences), is_unequal=is_unequal
    )


def _disagreement(rows: Sequence[KpiRow], claimed: dict[str, set[int]], sentences: Sequence[str]) -> str | None:
    """Return a sentence that says something else than the rows' claims, from six blocks on their verdicts; None if all agree."""
    devices = {row.device for row in rows}
    rest = " ".join(sentences)
    for key, signs in claimed.items():
        claims = [(row.device, row.claim) for row in rows if row.key == key]
        better = {device for device, claim in claims if claim is Verdict.BETTER}
        worse = {device for device, claim in claims if claim is Verdict.WORSE}
        expected = {1} if worse else {-1} if better == devices else set()
        if signs != expected:
            return f"{key}: {sentences[0]!r} but {claims}"
        if key == "switch":
            continue
        noun = "memory" if key == "peak_ram" else "time"
        if (f"the same {noun} within" in rest) != any(claim is Verdict.SAME for _, claim in claims):
            return f"{key}: {rest!r} but {claims}"
        unknown = next((sentence for sentence in sentences if "is unknown whether" in sentence), "")
        if (f"more {noun}" in unknown) != any(claim is Verdict.INCONCLUSIVE for _, claim in claims):
            return f"{key}: {unknown!r} but {claims}"
    return None
