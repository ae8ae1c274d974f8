"""The command `sensitivity`: score adapters' rounding errors. Choose an adapter, or none, to set all adapters' ranges."""

from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from quadbench.cli.console import WORST_SITES, RunConsole, figures_table, print_answer, stdout_console
from quadbench.cli.options import Options, Subparsers, add_command, add_recipe
from quadbench.errors import requires_extra
from quadbench.quad.inputs import read_recipe

if TYPE_CHECKING:
    from quadbench.quad.divergence import DivergenceScore
    from quadbench.quad.sensitivity import Agreement, Sensitivity


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "sensitivity", run)
    add_recipe(parser)
    parser.add_argument("--lora", choices=("int16", "int8"), help="bits of the adapters (default: the recipe's)")


def run(options: Options) -> int:
    recipe = read_recipe(options.recipe)
    with requires_extra("quad"):
        from quadbench.quad.sensitivity import analyse
    with RunConsole() as observer:
        sensitivity = analyse(recipe, lora=options.lora, notify=partial(observer.stage_step, "sensitivity"))
    print_answer(options, sensitivity, lambda: _print_sensitivity(stdout_console(), sensitivity))
    return 0


def _print_sensitivity(console: Console, sensitivity: "Sensitivity") -> None:
    """Print adapters' quantization errors per denoising step and layer. Last, print the adapter whose ranges all adapters use."""
    for one in sensitivity.adapters:
        title = f"{one.adapter}, {sensitivity.lora}, with its own encodings"
        shown = figures_table("rounded", "SQNR dB", "MSE", "JS", "samples", title=title)
        shown.add_row(Text("all sites (QSS)", style="bold"), *_score_cells(one.score))
        shown.add_section()
        for step in one.steps:
            shown.add_row(f"{step.task}, step {step.step}, t = {step.timestep:g}", *_score_cells(step.score))
        shown.add_section()
        for site in one.sites[:WORST_SITES]:
            shown.add_row(site.site, *_score_cells(site.score))
        console.print(shown)
        console.print(f"ranking of its {len(one.sites)} sites: {_agreement(one.site_agreement)}", highlight=False)
        compared = [site.below_worst for site in one.sites if site.below_worst]
        alike = [difference for difference in compared if not difference.is_told_apart]
        inputs = f" with {compared[0].pairs} inputs" if compared else ""
        line = f"{len(alike)} of {len(compared)} other sites cannot be distinguished from the worst{inputs}"
        console.print(f"{line}\n", highlight=False)
    console.print(f"ranking of the adapters: {_agreement(sensitivity.agreement)}", highlight=False)
    for comparison in sensitivity.choice.comparisons:
        console.print(comparison.described, highlight=False)
    console.print(f"anchor: {sensitivity.choice.anchor or 'none, use unified'}; {sensitivity.choice.reason}", highlight=False)


def _score_cells(score: "DivergenceScore") -> tuple[str, ...]:
    sqnr_db = "no noise" if score.sqnr_db is None else f"{score.sqnr_db:.1f}"
    return sqnr_db, f"{score.mse:.3g}", f"{score.js:.3g}", str(score.samples)


def _agreement(agreement: "Agreement") -> str:
    mse, sqnr = (("undefined" if tau is None else f"{tau:.2f}") for tau in (agreement.mse, agreement.sqnr))
    return f"Kendall's tau of JS with MSE {mse}, with SQNR {sqnr}"
