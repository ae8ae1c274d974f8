"""The shared U-Net on the emulated HTP against the CPU and against float, at each step of every task's trajectory.

    python bench/htp.py [RECIPE] [--target qnn-v79-69] [--tasks restyle,remove-object] [--results DIR]

Builds the recipe without baselines and with the named tasks alone (all, unless named), compiles it for the target, and runs every
task's first evaluation input: the float U-Net's own trajectory, whose inputs both quantized U-Nets are fed. A run of the built-in
U-Net takes the emulator 5 s on an idle machine. Prints SQNR of eps in dB as Markdown, a row for each task and pair.
"""

import argparse
import platform
import sys
from pathlib import Path

from quadbench.artifacts.bundle import TrajectorySqnr
from quadbench.compile import compile_bundle
from quadbench.quad.build import build
from quadbench.quad.cache import find_bundle
from quadbench.quality.trajectories import htp_trajectories
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.target.profile import find_target, known_targets, load_profiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("--target", default="qnn-v79-69")
    parser.add_argument("--tasks", default="", help="names, joined by commas (default: all)")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    layout = Layout(options.results)
    recipe = with_tasks(load_recipe(options.recipe), options.tasks.split(",") if options.tasks else [])
    bundle = find_bundle(recipe, layout) or build(recipe, layout)
    known = find_target(options.target, known_targets(load_profiles(), platform.machine()))
    compiled = compile_bundle(bundle, known.target, known.key, layout, htp_arch=known.htp_arch)
    print("\n".join(table(htp_trajectories(bundle, compiled, lambda step: print(step, file=sys.stderr)))))  # noqa: T201


def with_tasks(recipe: Recipe, names: list[str]) -> Recipe:
    tasks = tuple(task for task in recipe.tasks if not names or task.name in names)
    return recipe.model_copy(update={"tasks": tasks, "baselines": ()})


def table(trajectories: tuple[TrajectorySqnr, ...]) -> list[str]:
    lines = ["| task | pair | all steps | worst step | by step |", "|---|---|---|---|---|"]
    for one in trajectories:
        worst = f"{_db(one.worst.sqnr_db)}, step {one.worst.step + 1} of {len(one.steps)}" if one.worst else "–"
        by_step = ", ".join(_db(step.sqnr_db) for step in one.steps)
        lines.append(f"| `{one.task}` | {one.variant} | {_db(one.sqnr_db)} | {worst} | {by_step} |")
    return lines


def _db(value: float | None) -> str:
    return "no difference" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()
