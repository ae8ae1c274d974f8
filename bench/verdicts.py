"""Compare a variant with itself, and with one whose pictures take a step more, many times: how often are differences called?

python bench/verdicts.py --comparisons 40 --results /tmp/verdicts
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from in_turn import Unwatched

from quadbench.devices.addresses import parse_addresses
from quadbench.report.versus import primary_row
from quadbench.results.layout import Layout
from quadbench.statistics.launch_comparison import share_interval
from quadbench.study.run_comparison import compare, side_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="text-to-image")
    parser.add_argument("--task", default="tasks.0.sampler.steps")
    parser.add_argument("--steps", type=int, nargs=2, default=(20, 21), help="of A, and of the slower B")
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--comparisons", type=int, default=40)
    parser.add_argument("--study", choices=("A/A", "A/B"), nargs="+", default=("A/A", "A/B"))
    parser.add_argument("--devices", default="local")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    layout = Layout(options.results)
    same, more = ({options.task: str(steps)} for steps in options.steps)
    measured = {"measure.iterations": str(options.iterations), "measure.warmup": "1", "measure.switches": "0"}
    sides = {"A/A": same, "A/B": more}
    for name, changes in ((study, sides[study]) for study in options.study):
        a, b = (side_of(options.recipe, side | measured, layout) for side in (same, changes))
        verdicts: Counter[str] = Counter()
        for number in range(options.comparisons):
            versus = compare(a, b, parse_addresses([options.devices]), layout=layout, observer=Unwatched())  # type: ignore[arg-type]
            row = primary_row(versus.devices[0])
            if row is None or row.comparison is None:
                raise SystemExit("no times to compare")
            outcome = row.comparison
            verdicts[outcome.verdict] += 1
            line = {"study": name, "number": number, "blocks": outcome.blocks, "verdict": outcome.verdict}
            print(json.dumps(line | {"ratio": outcome.ratio, "low": outcome.low, "high": outcome.high}), flush=True)  # noqa: T201
        for verdict, count in sorted(verdicts.items()):
            low, high = share_interval(count, options.comparisons)
            print(f"{name}: {verdict} {count} of {options.comparisons} ({low:.0%} to {high:.0%})", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
