"""Store the bytes of a run of `ten-tasks` for reports, and draw them for the README.

    quadbench run recipes/ten-tasks.yaml --devices local
    python bench/ten_tasks.py [RUN] [--results DIR]

Writes quadbench/zoo/ten_tasks.json, which reports of the built-in model show beside their own bytes, and docs/img/ten-tasks.svg.
Prints the table. Bytes are sizes of files, so neither launches nor the machine's speed matter.
"""

import argparse
import json
from pathlib import Path

from quadbench.artifacts import MIB, RunResult
from quadbench.report.run_charts import growth_chart
from quadbench.report.storage import Storage, foundation_in, storage_views, stored_growth
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import load_run
from quadbench.zoo import ADAPTERS, TEN_TASKS

PICTURE = Path(__file__).parents[1] / "docs/img/ten-tasks.svg"
# GitHub shows a picture on the reader's own ground: text that can be read on both.
_STYLE = "<style>.text{fill:#767b84}.grid{stroke:#8a8f9840}</style>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_id", nargs="?")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    run = load_run(Layout(options.results), options.run_id)
    (storage,) = storage_views(run)
    TEN_TASKS.write_text(json.dumps(stored(storage, run), indent=1) + "\n", encoding="utf-8")
    growth = stored_growth(storage.target, 0, run.recipe)
    assert growth is not None
    head, title, rest = growth_chart(growth).partition("</title>")
    PICTURE.write_text(f"{head}{title}{_STYLE}{rest}\n", encoding="utf-8")
    print("| tasks | shared, MB | per-graph, MB | per-graph / shared |\n|---:|---:|---:|---:|")  # noqa: T201
    for count, shared, own in growth.shown:
        print(f"| {count} | {shared / MIB:.1f} | {own / MIB:.1f} | {own / shared:.2f} |")  # noqa: T201


def stored(storage: Storage, run: RunResult) -> dict[str, object]:
    """Return what the package keeps of a run of `ten-tasks`.

    Raises:
        SystemExit: the run lacks the bytes of one side.
    """
    if not storage.has_both:
        raise SystemExit("the run lacks bytes of one side; expected shared and per-graph launches that were OK")
    return {
        "schema_version": 1,
        "recipe": run.bundle.recipe_name,
        "foundation": foundation_in(run.recipe or ""),
        "measured_on": f"{run.records[0].started_at:%Y-%m-%d}",
        "target": storage.target,
        "steps": [
            {
                "task": step.task,
                "is_random": step.adapter not in ADAPTERS,
                "lora_bytes": step.adapter_bytes,
                "shared_bytes": step.shared_bytes,
                "per_graph_bytes": step.per_graph_bytes,
            }
            for step in storage.measured
        ],
    }


if __name__ == "__main__":
    main()
