"""Detectors: labelled series -> how many regressions quadbench, apache-otava and asv find, and what they find beside them.

    python bench/detectors.py [FOLDER]

FOLDER holds `metadata/dataset_details.csv` and `data/*.csv` as SAP HANA's performance series do, which lie in the tests' data.
The peers are installed into environments of their own below ~/.cache/quadbench, each at the version that stands here, and run
with the settings that they come with.
"""

import csv
import json
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quadbench.statistics.change_points import shifts

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
_MAIN = "\njson.dump({name: points(values) for name, values in json.load(sys.stdin).items()}, sys.stdout)\n"


@dataclass(frozen=True)
class Peer:
    """A detector of somebody else: the package and version to install, and the program that asks it."""

    requirement: str
    program: str


PEERS = {"apache-otava": Peer("apache-otava==0.8.0", _OTAVA), "asv": Peer("asv==0.6.6", _ASV)}


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
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HANA
    labels, series = read_labels(folder), read_series(folder)
    print("| detector | regressions found | points elsewhere | clean series with a point |\n|---|---|---|---|")  # noqa: T201
    detectors: dict[str, Callable[[], Points]] = {"quadbench": lambda: ours(series)}
    detectors |= {peer.requirement.replace("==", " "): (lambda peer=peer: asked(peer, series)) for peer in PEERS.values()}
    for name, detect in detectors.items():
        score = judged(detect, labels)
        counts = f"{score.detected} of {score.regressions} | {score.beside} | {score.alarmed} of {score.clean}"
        print(f"| {name} | {counts} |")  # noqa: T201


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


def judged(detect: Callable[[], Points], labels: Mapping[str, int]) -> Score:
    """Run a detector over all series."""
    points = detect()
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
