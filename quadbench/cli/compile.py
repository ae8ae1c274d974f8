"""The command `compile`: compile a recipe or bundle for a device or a target key, and print the folder of the compiled files."""

import platform
from dataclasses import asdict
from pathlib import Path

from quadbench import pipeline
from quadbench.ai_hub.hub_jobs import HubRequest
from quadbench.artifacts import MIB, Bundle, Graph
from quadbench.artifacts.run_record import file_refs
from quadbench.cli.console import RunConsole, print_answer, print_rows, print_text_table, stdout_console
from quadbench.cli.options import Options, Subparsers, add_command
from quadbench.compile import plan_at_hub
from quadbench.devices.addresses import parse_address
from quadbench.errors import UserError
from quadbench.quad.bundle_search import bundle_folder
from quadbench.quad.inputs import read_recipe
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import recipe_file
from quadbench.report.formatting import TextTable
from quadbench.results.manifest import read_manifest
from quadbench.rollout.forecast import target_problems_of
from quadbench.spec.spec_model import refuse_in
from quadbench.target.profile import KnownTarget, broken_profiles, find_target, known_targets, load_profiles, local_profile
from quadbench.target.targets import AiHubTarget


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "compile", run)
    parser.add_argument("source", metavar="RECIPE_OR_BUNDLE", help="a recipe, or a bundle's folder, results/bundles/<digest>")
    parser.add_argument(
        "--target",
        required=True,
        metavar="TARGET",
        help="a device's address (s25, virtual:s25, hub:s25), or a key of: targets",
    )
    parser.add_argument("--dry-run", action="store_true", help="print each request to AI Hub, without sending it")


def run(options: Options) -> int:
    known = known_targets([*load_profiles(), local_profile()], platform.machine())
    target = find_target(options.target, known, broken_profiles())
    source: Recipe | Path | None = bundle_folder(options.source)
    if source is None:
        recipe, profile = read_recipe(options.source), parse_address(options.target).profile
        refuse_in(recipe_file(options.source), target_problems_of(recipe, profile, target.target, options.target))
        source = recipe.for_device(profile)
    if options.dry_run:
        return _dry_run(options, source, target)
    with RunConsole() as observer:
        bundle, compiled = pipeline.ensure_compiled(source, target, layout=options.layout, observer=observer)
    answer = {**asdict(compiled.artifact), "folder": str(compiled.folder), "is_reused": compiled.is_reused}
    files = {file.path: file.size_bytes for file in file_refs(compiled.artifact.graphs)}
    size = f"{len(files)} files, {sum(files.values()) / MIB:.1f} MB{', unchanged' if compiled.is_reused else ''}"
    doubts = "".join(f"\n{caveat.label}: {caveat.advice}" for caveat in compiled.artifact.caveats)
    print_answer(options, answer, f"{compiled.folder}\n{compiled.artifact.target}: {size}{doubts}")
    if not options.json:
        onnx = {_graph_label(graph): _size(graph) for graph in bundle.artifact.graphs}
        sizes = {place: (onnx[place], _size(graph)) for graph in compiled.artifact.graphs if (place := _graph_label(graph))}
        table = TextTable(
            title=f"Graphs for {compiled.artifact.target}",
            columns=("Graph", "ONNX, MB", "Compiled, MB"),
            numeric=(False, True, True),
            rows=tuple((place, *(f"{size_bytes / MIB:.2f}" for size_bytes in both)) for place, both in sizes.items()),
        )
        print_text_table(stdout_console(), table)
    return 0


def _dry_run(options: Options, source: Recipe | Path, target: KnownTarget) -> int:
    """Print all requests that compiling would send to AI Hub. Build a recipe's bundle if necessary, but send nothing."""
    if not isinstance(target.target, AiHubTarget):
        raise UserError(
            f"--dry-run of compile is for targets at AI Hub; '{options.target}' compiles on this machine",
            hint="for a device's builds and pushes: quadbench run RECIPE --devices ADDRESS --dry-run",
        )
    with RunConsole() as observer:
        if isinstance(source, Path):
            bundle = read_manifest(source, Bundle)
        else:
            bundle = pipeline.ensure_bundle(source, layout=options.layout, observer=observer)
    requests = plan_at_hub(bundle, target.target, target.key, options.layout)
    rows = [(one.kind, one.name, one.options, f"known as {one.known}" if one.known else _request_size(one)) for one in requests]
    print_answer(
        options,
        {"device": target.target.device, "requests": requests},
        lambda: print_rows(("request", "name", "options", "size or id"), rows, whole=("request",)),
    )
    return 0


def _request_size(request: HubRequest) -> str:
    return "" if request.size_bytes is None else f"{request.size_bytes / MIB:.2f} MB"


def _graph_label(graph: Graph) -> str:
    return " ".join(filter(None, (graph.variant, graph.component, graph.task and f"of {graph.task}")))


def _size(graph: Graph) -> int:
    """Return a graph's size on disk in bytes, including its external weights file."""
    return sum(file.size_bytes for file in {file.path: file for file in file_refs(graph)}.values())
