"""The command `adapter`: inspect a LoRA file or add it to a bundle. LoHa, LoKr and full-matrix deltas are converted to LoRA."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quadbench import pipeline
from quadbench.artifacts import MIB, Bundle, StoredBundle
from quadbench.cli.console import WORST_SITES, RunConsole, figures_table, print_error, print_json, print_text, stdout_console
from quadbench.cli.device_options import listed_devices
from quadbench.cli.options import Options, Subparsers, add_action, add_group, next_command, whole_number
from quadbench.devices.addresses import parse_addresses
from quadbench.errors import AdapterError, QuadbenchError, UserError, requires_extra
from quadbench.quad.bundle_search import fitting_bundle, latest_bundle
from quadbench.quad.candidate import Candidate, NewTask
from quadbench.quad.inputs import read_recipe
from quadbench.quad.model_files import check_adapter_tensors
from quadbench.recipe import mix_name
from quadbench.recipe.recipe import built_in_recipes
from quadbench.results.manifest import read_manifest

if TYPE_CHECKING:
    from quadbench.quad.adapters.inspection import Inspection
    from quadbench.quad.admit import Admission

_UNET_ONLY = "ignore the file's tensors for the text encoder, and print their share"
_FILE = "a PEFT folder, or a .safetensors file of diffusers or kohya's scripts"
MAX_RANK = 1024
_NO_COMMAND = (
    "no command can add the adapter to this base: train it again with smaller changes, or list it in the recipe, with "
    "quad.distill if necessary, and build a new base"
)


def add(commands: Subparsers) -> None:
    actions = add_group(commands, "adapter")
    inspect = add_action(actions, "inspect", run_inspect, "show the contents of an adapter file and everything wrong with it")
    inspect.add_argument("--recipe", help="also check that the adapter fits this recipe's foundation model")
    inspect.add_argument("--bundle", type=Path, metavar="DIR", help="judge the adapter by this bundle's profile; writes nothing")
    admit = add_action(
        actions,
        "admit",
        run_admit,
        "add an adapter to a built bundle if it fits the ranges that its adapters share, and push it",
    )
    where = "the bundle's folder (default: the result of the latest admission, or the latest run's bundle)"
    admit.add_argument("--bundle", type=Path, metavar="DIR", help=where)
    admit.add_argument("--recipe", help="the recipe from which the bundle was built; --like needs it")
    admit.add_argument("--like", metavar="TASK", help="add a task for the adapter, which is otherwise a copy of this task")
    admit.add_argument("--name", help="the adapter's name (default: from the file's name)")
    admit.add_argument(
        "--weight",
        type=float,
        default=1.0,
        metavar="W",
        help="the greatest weight that tasks will give the adapter (default: 1)",
    )
    admit.add_argument("--devices", metavar="A,B", help="where to push it (default: nowhere)")
    convert = add_action(actions, "convert", run_convert, "convert a LoHa, LoKr or full difference to a LoRA, with its error")
    convert.add_argument(
        "--rank",
        type=whole_number(1, MAX_RANK),
        required=True,
        metavar="N",
        help="the greatest rank of any site, 1 to 1024",
    )
    convert.add_argument("--recipe", required=True, help="a recipe with the foundation model for which the adapter was trained")
    convert.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    of_lycoris = "a PEFT folder, or a .safetensors file of LyCORIS or kohya's scripts"
    for action, file in ((inspect, _FILE), (admit, _FILE), (convert, of_lycoris)):
        action.add_argument("file", type=Path, metavar="FILE", help=file)
        action.add_argument("--unet-only", action="store_true", help=_UNET_ONLY)


def run_inspect(options: Options) -> int:
    recipe = read_recipe(options.recipe) if options.recipe else None
    with requires_extra("quad"):
        from quadbench.quad.admit import inspect_candidate
    bundle = read_manifest(options.bundle, Bundle) if options.bundle else None
    inspection, admission = inspect_candidate(options.file, recipe=recipe, bundle=bundle, unet_only=options.unet_only)
    if options.json:
        print_json(asdict(inspection) | {"admission": _answer(admission) if admission else None})
    else:
        _print_inspection(inspection)
        if admission:
            _print_admission(admission)
    if inspection.problems or (admission and not admission.judgement.acceptance.is_admitted):
        return AdapterError.exit_code
    if not options.json:
        print_text(f"next: {_admit_command(options, _judging_bundle(options, bundle))}")
    return 0


def run_admit(options: Options) -> int:
    candidate, bundle = _candidate_and_bundle(options)
    stages = ("judge", *(["paint"] if options.like else []), *(["compile", "push"] if options.devices else []))
    with RunConsole(stages=stages) as observer:
        devices = parse_addresses(listed_devices(options.devices))
        admission, deployments = pipeline.admit(candidate, bundle, devices, layout=options.layout, observer=observer)
    if options.json:
        print_json(_answer(admission) | {"sent_bytes": {d.device.address: d.sent_bytes for d in deployments}})
    else:
        print_text(f"added to: {bundle.folder}" if admission.extended else f"judged by: {bundle.folder}")
        _print_admission(admission)
        if admission.extended:
            measured = ("run", options.recipe, "--bundle", str(admission.extended.folder))
            given = f"{_admit_command(options, bundle)} gives it a task to measure"
            print_text(f"next: {next_command(options, *measured) if options.like else given}")
    if admission.extended is None:
        hint = _remedy(options, admission)
        print_error(f"adapter '{admission.name}' was not added: {admission.judgement.acceptance}. Hint: {hint}")
        return AdapterError.exit_code
    return 0


def _remedy(options: Options, admission: "Admission") -> str:
    """Return a refused adapter's hint: train it again or build a new bundle. If a lower weight fits, add an admit command."""
    recipe = options.recipe if options.recipe and options.recipe not in built_in_recipes() else "RECIPE"
    new_base = f"{_NO_COMMAND}: {next_command(options, 'run', recipe)}"
    if admission.fits_at is None:
        return new_base
    given = {name: getattr(options, name) for name in ("bundle", "recipe", "like", "name", "devices")}
    words = [word for name, value in given.items() if value for word in (f"--{name}", str(value))]
    words += ["--unet-only"] if options.unet_only else []
    weaker = next_command(options, "adapter", "admit", str(options.file), "--weight", f"{admission.fits_at:g}", *words)
    return f"{weaker} adds it for tasks that give it at most this weight. At {admission.weight:g}, {new_base}"


def _candidate_and_bundle(options: Options) -> tuple[Candidate, StoredBundle]:
    """Return (candidate, bundle): the adapter that the command line names, and the bundle that would receive the adapter."""
    check_adapter_tensors(options.file.name, options.file)
    recipe = read_recipe(options.recipe) if options.recipe else None
    if options.like and not recipe:
        bundle = _judging_bundle(options, read_manifest(options.bundle, Bundle) if options.bundle else None)
        hint = f"name it, as its model makes the new task's reference images: {_admit_command(options, bundle, options.like)}"
        raise UserError("--like needs --recipe, the recipe from which the bundle was built", hint=hint)
    if options.bundle and recipe:
        bundle = fitting_bundle(options.bundle, recipe, options.layout)
    elif options.bundle:
        bundle = read_manifest(options.bundle, Bundle)
    else:
        bundle = latest_bundle(options.layout, recipe)
    task = NewTask(recipe=recipe, like=options.like) if recipe and options.like else None
    asked = Candidate(source=options.file, name=options.name, weight=options.weight, unet_only=options.unet_only, task=task)
    return asked, bundle


def _admit_command(options: Options, bundle: StoredBundle | None, like: str | None = None) -> str:
    """Return a shell command that adds the adapter file to a bundle. An unknown recipe or task is written as RECIPE or TASK."""
    own = (task.name for task in bundle.artifact.tasks if task.adapter) if bundle else iter(())
    known = bundle.artifact.recipe_name if bundle and bundle.artifact.recipe_name in built_in_recipes() else "RECIPE"
    words = ("adapter", "admit", str(options.file), "--recipe", options.recipe or known, "--like", like or next(own, "TASK"))
    folder = ("--bundle", str(bundle.folder)) if bundle else ()
    return next_command(options, *words, *folder)


def _judging_bundle(options: Options, named: StoredBundle | None) -> StoredBundle | None:
    """Return the bundle to check an adapter against: `named`, or else the latest bundle. Return None if no bundle is found."""
    try:
        return named or latest_bundle(options.layout, read_recipe(options.recipe) if options.recipe else None)
    except QuadbenchError:
        return None


def run_convert(options: Options) -> int:
    recipe = read_recipe(options.recipe)
    with requires_extra("quad"):
        from quadbench.quad.adapters.convert import convert, origin, write_conversion
        from quadbench.quad.prepare import sites_of
    conversion = convert(options.file, sites_of(recipe), rank=options.rank, unet_only=options.unet_only)
    write_conversion(conversion, options.output)
    if options.json:
        answer = {"output": str(options.output), "greatest_bias": conversion.greatest_bias, "sites": conversion.sites}
        print_json(origin(conversion) | answer)
    else:
        worst = conversion.sites[0]
        print_text(f"{conversion.source}: {len(conversion.sites)} sites converted to a LoRA of rank {conversion.rank} at most")
        print_text(f"relative error {conversion.error:.2%} over all sites, {worst.error:.2%} at the worst, {worst.site}")
        shown = figures_table("site", "was", "rank", "error")
        for site in conversion.sites[:WORST_SITES]:
            shown.add_row(site.site, site.method, str(site.rank), f"{site.error:.2%}")
        stdout_console().print(shown)
        if conversion.biases:
            most = f"magnitudes up to {conversion.greatest_bias:.3g}"
            print_text(f"left out: updates of biases, which a LoRA cannot contain, at {conversion.biases} sites ({most})")
        if conversion.adapter.left_out:
            print_text(str(conversion.adapter.left_out))
        print_text(f"written: {options.output}")
        print_text(f"next: {next_command(options, 'adapter', 'inspect', str(options.output), '--recipe', options.recipe)}")
    return 0


def _answer(admission: "Admission") -> dict[str, Any]:
    folder = str(admission.extended.folder) if admission.extended else None
    return {
        "name": admission.name,
        "weight": admission.weight,
        "bundle": folder,
        "base": admission.base,
        "verdict": admission.judgement.acceptance,
        "reason": admission.judgement.reason,
        "fits_at": admission.fits_at,
        "left_out": admission.left_out,
        "plain": admission.judgement.plain,
        "gauged": admission.judgement.gauged,
    }


def _print_inspection(inspection: "Inspection") -> None:
    print_text(f"{inspection.path}: {inspection.format}, as {inspection.because}")
    low, high = inspection.scale
    ranks = ", ".join(f"{rank} at {sites}" for rank, sites in inspection.ranks.items())
    sizes = f"{_size(inspection.int16_bytes)} in INT16, {_size(inspection.int8_bytes)} in INT8"
    print_text(f"{inspection.sites} sites (rank {ranks or '-'}), scale {low:g}{'' if low == high else f' to {high:g}'}")
    print_text(f"{inspection.parameters:,} parameters: {sizes}")
    shown = figures_table("sites", "number", "parameters", "max |down|", "max |up|")
    for row in inspection.kinds:
        shown.add_row(row.kind, str(row.sites), f"{row.parameters:,}", f"{row.greatest_down:.4g}", f"{row.greatest_up:.4g}")
    stdout_console().print(shown)
    if inspection.outlier:
        one = inspection.outlier
        print_text(f"worst outlier: {one.ratio:.1f} times the root mean square, {one.side} of {one.site}")
    if inspection.left_out:
        print_text(str(inspection.left_out))
    for problem in inspection.problems:
        print_text(f"problem: {problem.message}" + (f". Hint: {problem.hint}" if problem.hint else ""))
    if not inspection.problems:
        print_text("no problems")


def _print_admission(admission: "Admission") -> None:
    judgement, base = admission.judgement, admission.base
    print_text(f"{mix_name({admission.name: admission.weight})}: {judgement.acceptance}; {judgement.reason}")
    shown = figures_table("", "clipped", "effective bits", "SQNR dB")
    for label, fit in (("unchanged", judgement.plain), ("gauge-aligned", judgement.gauged)):
        shown.add_row(f"{label}, all {len(fit.sites)} sites", *_cells(fit.clip_rate, fit.effective_bits, fit.sqnr_db))
        for site in fit.sites[:WORST_SITES]:
            shown.add_row(f"  {site.site}", *_cells(site.clipped / site.weights, site.effective_bits, site.sqnr_db))
        shown.add_section()
    stdout_console().print(shown)
    print_text("gauge-aligned: its two matrices are scaled against each other to fill the shared ranges; pictures stay the same")
    if admission.left_out:
        print_text(str(admission.left_out))
    print_text(f"base {base.graph[:12]}, profile {base.profile[:12]}")
    if admission.extended:
        print_text(f"bundle: {admission.extended.folder}")


def _cells(clip_rate: float, effective_bits: float, sqnr_db: float) -> tuple[str, str, str]:
    return f"{clip_rate:.2%}", f"{effective_bits:.1f}", "no noise" if math.isinf(sqnr_db) else f"{sqnr_db:.1f}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.2f} MB"
