"""Command line: parse, call one function, print. Results go to stdout, everything else to stderr."""

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from quadbench import pipeline
from quadbench.artifacts import Bundle, RunResult
from quadbench.console import (
    RunConsole,
    print_checks,
    print_devices,
    print_error,
    print_json,
    print_kpis,
    print_sensitivity,
    print_text,
)
from quadbench.device_profile import LOCAL_NAME, load_profile
from quadbench.devices import SERIAL_VARIABLE, list_devices
from quadbench.doctor import examine
from quadbench.errors import BuildError, HarnessError, MissingDependencyError, QuadbenchError, UserError
from quadbench.harness import ensure_harness
from quadbench.lint import Severity, lint_bundle, messages
from quadbench.manifest import read_manifest
from quadbench.recipe import load_recipe, recipe_digest, recipe_schema
from quadbench.report import kpi_rows, kpi_table, to_csv, to_latex, to_markdown

INTERRUPTED = 130
_EXIT_CODES = """\
exit codes: 0 success; 1 unexpected error; 2 wrong input; 3 damaged artifact; 4 build or compilation failed;
5 device absent, lost or full; 6 the harness failed on a device; 7 a program or package is missing; 130 Ctrl-C.
What was measured before a failure is stored."""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where records, bundles and reports are kept (default: results)",
    )
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("-v", "--verbose", action="count", default=0, help="log every stage; twice: every command on a device")

    parser = argparse.ArgumentParser(
        prog="quadbench",
        description="One quantized base and many LoRAs on phones: build, deploy, measure, report.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"quadbench {version('quadbench')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = _command(commands, "run", _run, common, "build a recipe, push it to devices, measure and report")
    run.add_argument("recipe", help="a YAML file, or the name of a recipe that comes with quadbench")
    run.add_argument(
        "--devices",
        default="",
        metavar="A,B",
        help="addresses: s25, s25@SERIAL, SERIAL, virtual:s25, local (default: $ANDROID_SERIAL, else local)",
    )
    run.add_argument("-s", "--serial", metavar="SERIAL", help="the phone with this serial, as adb's option of that name")

    _command(commands, "devices", _devices, common, "list what can be given to --devices")
    _command(commands, "doctor", _doctor, common, "say what is installed and what to install")

    report = _command(commands, "report", _report, common, "write the report of a stored run again, and print its figures")
    report.add_argument("run_id", nargs="?", help="the run (default: the latest)")
    report.add_argument(
        "--format", choices=("table", "csv", "markdown", "latex"), default="table", help="how the figures are printed"
    )

    adapter = _command(commands, "adapter", None, None, "add adapters to a bundle that is built")
    actions = adapter.add_subparsers(dest="action", required=True, metavar="ACTION")
    admit = _command(actions, "admit", _adapter_admit, common, "quantize an adapter under a bundle's frozen profile, and push it")
    admit.add_argument("name", help="what the adapter shall be called")
    admit.add_argument("folder", type=Path, help="a PEFT folder")
    admit.add_argument("--bundle", type=Path, metavar="DIR", help="the bundle's folder (default: that of the latest run)")
    admit.add_argument("--devices", default="", metavar="A,B", help="where to push it (default: nowhere)")

    lint = _command(commands, "lint", _lint, common, "say what compilers and NPUs would refuse in a bundle's graphs")
    lint.add_argument("bundle", type=Path, metavar="BUNDLE_DIR", help="the bundle's folder, results/bundles/<digest>")
    lint.add_argument("--profile", metavar="NAME", help="a device profile, for the rules of its chip as well")

    sensitivity = _command(
        commands,
        "sensitivity",
        _sensitivity,
        common,
        "say how sensitive a recipe's adapters are to rounding, and choose the anchor",
    )
    sensitivity.add_argument("recipe", help="a YAML file, or the name of a recipe that comes with quadbench")
    sensitivity.add_argument("--lora", choices=("int16", "int8"), help="bits of the adapters (default: the recipe's)")

    recipe = _command(commands, "recipe", None, None, "check recipes, or print their schema")
    actions = recipe.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = _command(actions, "check", _recipe_check, common, "say whether a recipe is right; every problem with its line")
    check.add_argument("recipe", help="a YAML file, or the name of a recipe that comes with quadbench")
    _command(actions, "schema", _recipe_schema, common, "print the JSON Schema of recipes, for editors")

    harness = _command(commands, "harness", None, None, "build the native harness")
    actions = harness.add_subparsers(dest="action", required=True, metavar="ACTION")
    _command(actions, "build", _harness_build, common, "build it for this machine, unless it is there, and print its path")
    return parser


def _command(
    commands: Any,
    name: str,
    function: Callable[[argparse.Namespace], int] | None,
    common: argparse.ArgumentParser | None,
    help_text: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text.capitalize() + ".", parents=[common] if common else []
    )
    if function:
        parser.set_defaults(function=function)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = build_parser().parse_args(arguments)
    _configure_logging(options.verbose)
    try:
        code: int = options.function(options)
    except QuadbenchError as error:
        return _fail(options, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(options, "interrupted; what was measured is stored", INTERRUPTED)
    return code


def _fail(options: argparse.Namespace, message: str, code: int) -> int:
    if options.json:
        print_json({"error": message, "exit_code": code})
    print_error(message)
    return code


def _configure_logging(verbosity: int) -> None:
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    handler = RichHandler(console=Console(stderr=True), show_path=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("quadbench").setLevel(level)


def _run(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe)
    addresses = _addresses(options.devices, options.serial)
    with RunConsole(Console(stderr=True)) as observer:
        outcome = pipeline.run(recipe, addresses, results=options.results, observer=observer)
    _print_result(options, outcome.result, outcome.report)
    for address, failure in outcome.failures.items():
        print_error(f"{address} was left out: {failure}")
    if outcome.failures:
        return next(iter(outcome.failures.values())).exit_code
    return 0 if outcome.is_ok else HarnessError.exit_code


def _addresses(devices: str, serial: str | None) -> list[str]:
    """Where to run. `-s` picks the phone for one address, or is the address; with neither, $ANDROID_SERIAL, else this machine."""
    listed = [address.strip() for address in devices.split(",") if address.strip()]
    if serial and len(listed) > 1:
        raise UserError(f"-s {serial} picks one phone, but --devices names {len(listed)}", hint=f"write {listed[0]}@{serial}")
    if serial:
        return [f"{listed[0]}@{serial}"] if listed else [serial]
    return listed or ([] if os.environ.get(SERIAL_VARIABLE) else [LOCAL_NAME])


def _report(options: argparse.Namespace) -> int:
    result, path = pipeline.report(options.run_id, results=options.results)
    match options.format:
        case "csv":
            print_text(to_csv(result))
        case "markdown":
            print_text(to_markdown(kpi_table(result)))
        case "latex":
            print_text(to_latex(kpi_table(result)))
        case _:
            _print_result(options, result, path)
    return 0


def _print_result(options: argparse.Namespace, result: RunResult, path: Path) -> None:
    if options.json:
        records = [
            {"device": r.device.address, "variant": r.variant, "launch": r.launch, "status": r.status, "reason": r.reason}
            for r in result.records
        ]
        rows = [asdict(row) for row in kpi_rows(result)]
        print_json({"run_id": result.run_id, "report": str(path), "records": records, "kpis": rows})
    else:
        print_kpis(Console(), result)
        print_text(f"report: {path}")


def _adapter_admit(options: argparse.Namespace) -> int:
    addresses = [address for address in options.devices.split(",") if address]
    with RunConsole(Console(stderr=True)) as observer:
        admission, deployments = pipeline.admit(
            options.name, options.folder, options.bundle, addresses, results=options.results, observer=observer
        )
    figures = {
        "bundle": str(admission.folder),
        "clip_rate": admission.clip_rate,
        "mean_sqnr_db": admission.mean_sqnr_db,
        "worst_sqnr_db": admission.worst_sqnr_db,
        "worst_site": admission.worst_site,
    }
    if options.json:
        print_json(figures | {"sent_bytes": {d.device.address: d.sent_bytes for d in deployments}})
    else:
        print_text(
            f"{options.name}: {admission.clip_rate:.2%} of its weights clip; SQNR of up*down {admission.mean_sqnr_db:.1f} dB "
            f"on average, {admission.worst_sqnr_db:.1f} dB at worst ({admission.worst_site})\nbundle: {admission.folder}"
        )
    return 0


def _sensitivity(options: argparse.Namespace) -> int:
    with RunConsole(Console(stderr=True)) as observer:
        found = pipeline.sensitivity(load_recipe(options.recipe), lora=options.lora, observer=observer)
    if options.json:
        print_json(asdict(found))
    else:
        print_sensitivity(Console(), found)
    return 0


def _devices(options: argparse.Namespace) -> int:
    rows = list_devices()
    if options.json:
        print_json([asdict(row) for row in rows])
    else:
        print_devices(Console(), rows)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    checks = examine()
    if options.json:
        print_json([asdict(check) for check in checks])
    else:
        print_checks(Console(), checks)
    return 0 if all(check.is_ok for check in checks if check.is_required) else MissingDependencyError.exit_code


def _lint(options: argparse.Namespace) -> int:
    htp_arch = load_profile(options.profile).soc.htp_arch if options.profile else None
    findings = lint_bundle(read_manifest(options.bundle, Bundle), options.bundle, htp_arch=htp_arch)
    errors = list(messages(findings, Severity.ERROR))
    if options.json:
        print_json({graph: [asdict(finding) for finding in found] for graph, found in findings.items()})
    else:
        warnings = list(messages(findings, Severity.WARNING))
        for severity, lines in (("error", errors), ("warning", warnings)):
            for line in lines:
                print_text(f"{severity}: {line}")
        print_text(f"{len(findings)} graphs: {len(errors)} rules broken, {len(warnings)} warnings")
    return BuildError.exit_code if errors else 0


def _recipe_check(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe)
    digest = recipe_digest(recipe)
    if options.json:
        print_json({"name": recipe.name, "digest": digest, "tasks": [task.name for task in recipe.tasks]})
    else:
        print_text(f"{recipe.name}: right; {len(recipe.adapters)} adapters, {len(recipe.tasks)} tasks, digest {digest[:12]}")
    return 0


def _recipe_schema(options: argparse.Namespace) -> int:
    print_json(recipe_schema())
    return 0


def _harness_build(options: argparse.Namespace) -> int:
    path = ensure_harness(options.results / "harness")
    if options.json:
        print_json({"harness": str(path)})
    else:
        print_text(str(path))
    return 0
