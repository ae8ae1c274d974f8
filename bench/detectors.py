"""Detectors: labelled series -> how many changes quadbench, apache-otava, asv and PELT find, and what they find beside them.

    python bench/detectors.py [FOLDER]
    python bench/detectors.py --simulated [--seed 1000000] [--series 4] [--per-step 1] [--length 20 ...]

FOLDER holds `metadata/dataset_details.csv` and `data/*.csv` as SAP HANA's performance series do, which lie in the tests' data.
Simulated series are those of labelled.py, from a seed on. The peers are installed into environments of their own below
~/.cache/quadbench, each at the version that stands here, and run with the settings that they come with. PELT (of ruptures) comes
with none: here squared error, at least 8 values a segment, and a penalty of 3 log n variances of neighbouring values' noise.
"""

import argparse
import csv
import json
import subprocess
import venv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelled import KINDS, LENGTHS, Labelled
from labelled import series as simulated_series

from quadbench.statistics.change_points import shifts
from quadbench.statistics.launch_comparison import share_interval

HANA = Path(__file__).parents[1] / "tests" / "data" / "hana_small_2021"
CACHE = Path.home() / ".cache" / "quadbench" / "peers"
PLACE = 5  # values by which a point may miss a regression
Points = Mapping[str, Sequence[int]]
# Read series from stdin as JSON, {name: values}; write where each shifts, {name: indices}.
_OTAVA = """
import json, sys
from otava.analysis import compute_change_points
from otava.series import AnalysisOptions
o = AnalysisOptions()
def points(values):
    all_points, _ = compute_change_points(values, window_len=o.window_len, max_pvalue=o.max_pvalue, min_magnitude=o.min_magnitude)
    return [int(point.index) for point in all_points]
"""
_ASV = """
import json, sys
from asv.step_detect import detect_regressions, detect_steps
def points(values):
    _, _, regressions = detect_regressions(detect_steps(values), threshold=0.05)
    return [int(before) + 1 for before, *_ in regressions or ()]
"""
_PELT = """
import json, math, sys
import numpy as np, ruptures
def points(values):
    logs = np.log(values)
    noise = max(1.4826 * float(np.median(np.abs(np.diff(logs)))) / math.sqrt(2), 1e-4)
    found = ruptures.Pelt(model="l2", min_size=8, jump=1).fit(logs / noise)
    return found.predict(pen=3 * math.log(len(logs)))[:-1]
"""
_MAIN = "\njson.dump({name: points(values) for name, values in json.load(sys.stdin).items()}, sys.stdout)\n"


@dataclass(frozen=True)
class Peer:
    """A detector of somebody else: the package and version to install, and the program that asks it."""

    requirement: str
    program: str


PEERS = (Peer("apache-otava==0.8.0", _OTAVA), Peer("asv==0.6.6", _ASV), Peer("ruptures==1.1.10", _PELT))


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a detector makes of labelled series: regressions that it finds near their place, and its points beside one each."""

    detected: int
    regressions: int
    beside: int
    alarmed: int
    clean: int


def main() -> None:
    """Print one table of all detectors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HANA)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the first series")
    parser.add_argument("--series", type=int, default=4, help="clean ones of each kind and length")
    parser.add_argument("--per-step", type=int, default=1, help="series with each size and number of steps")
    parser.add_argument("--length", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--ours", action="store_true", help="quadbench alone")
    options = parser.parse_args()
    detectors: dict[str, Callable[[Mapping[str, Sequence[float]]], Points]] = {"quadbench": ours}
    if not options.ours:
        detectors |= {peer.requirement.replace("==", " "): (lambda series, peer=peer: asked(peer, series)) for peer in PEERS}
    if options.simulated:
        seeds = range(options.seed, options.seed + options.series)
        print_simulated(detectors, list(simulated_series(seeds, options.per_step, tuple(options.length))))
        return
    labels, series = read_labels(options.folder), read_series(options.folder)
    print("| detector | regressions found | points elsewhere | clean series with a point |\n|---|---|---|---|")  # noqa: T201
    for name, detect in detectors.items():
        score = judged(detect(series), labels)
        counts = f"{score.detected} of {score.regressions} | {score.beside} | {score.alarmed} of {score.clean}"
        print(f"| {name} | {counts} |")  # noqa: T201


def print_simulated(
    detectors: Mapping[str, Callable[[Mapping[str, Sequence[float]]], Points]], series: Sequence[Labelled]
) -> None:
    """Print how well detectors find the steps of simulated series: all together, and clean series and recall by kind."""
    found = {name: detect({str(number): one.values for number, one in enumerate(series)}) for name, detect in detectors.items()}
    print("| detector | clean series with a point | recall | precision | F1 |\n|---|---|---|---|---|")  # noqa: T201
    for name, points in found.items():
        print(f"| {name} | {' | '.join(_cells(series, points))} |")  # noqa: T201
    for group, values in (("kind", list(KINDS)), ("length", LENGTHS), ("step", sorted({one.step for one in series} - {0.0}))):
        print(f"\n| {group} | {' | '.join(found)} |\n|---|{'---|' * len(found)}")  # noqa: T201
        for value in values:
            of_group = [one if getattr(one, group) == value else None for one in series]
            cells = [_cells(of_group, points) for points in found.values()]
            print(f"| {value} | {' | '.join('; '.join(cell[:2]) for cell in cells)} |", flush=True)  # noqa: T201


def _cells(series: Iterable[Labelled | None], points: Points) -> tuple[str, str, str, str]:
    """Return the share of clean series with a point, with its 95 % interval, recall, precision and F1."""
    clean = alarmed = steps = hits = beside = 0
    for number, one in enumerate(series):
        if one is None:
            continue
        left = list(points[str(number)])
        clean, alarmed = clean + (not one.places), alarmed + (not one.places and bool(left))
        for place in one.places:
            near = [point for point in left if abs(point - place) <= PLACE]
            if near:
                left.remove(min(near, key=lambda point: abs(point - place)))
                hits += 1
        steps += len(one.places)
        beside += len(left) if one.places else 0
    low, high = share_interval(alarmed, clean) if clean else (0.0, 1.0)
    shares = hits / max(steps, 1), hits / max(hits + beside, 1), 2 * hits / max(hits + beside + steps, 1)
    alarms = f"{alarmed} of {clean} ({low:.1%} to {high:.1%})" if clean else "–"
    return alarms, *(f"{share:.2f}" for share in shares)


def read_labels(folder: Path) -> dict[str, int]:
    """Return by series the index of the first value of its regression; 0 where its owners found none."""
    with (folder / "metadata" / "dataset_details.csv").open() as file:
        return {row["Dataset"]: int(row["Change Point"]) for row in csv.DictReader(file, delimiter=";")}


def read_series(folder: Path) -> dict[str, list[float]]:
    """Return the values of every series."""
    series = {}
    for path in sorted((folder / "data").glob("*.csv")):
        with path.open() as file:
            series[path.name] = [float(row["Measurement"]) for row in csv.DictReader(file)]
    return series


def judged(points: Points, labels: Mapping[str, int]) -> Score:
    """Hold a detector's points against the labels of all series."""
    near = {name: [p for p in points[name] if label and abs(p - label) <= PLACE] for name, label in labels.items()}
    clean = [name for name, label in labels.items() if not label]
    return Score(
        detected=sum(map(bool, near.values())),
        regressions=sum(map(bool, labels.values())),
        beside=sum(len(points[name]) - bool(near[name]) for name in labels),
        alarmed=sum(bool(points[name]) for name in clean),
        clean=len(clean),
    )


def ours(series: Mapping[str, Sequence[float]]) -> Points:
    """Ask quadbench."""
    return {name: [shift.at for shift in shifts(values)] for name, values in series.items()}


def asked(peer: Peer, series: Mapping[str, Sequence[float]]) -> Points:
    """Ask a peer, in its own environment."""
    folder = CACHE / peer.requirement
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", peer.requirement], check=True)
    command = [python, "-c", peer.program + _MAIN]
    answer = subprocess.run(command, input=json.dumps(series), capture_output=True, text=True, check=True)
    points: Points = json.loads(answer.stdout)
    return points


if __name__ == "__main__":
    main()
