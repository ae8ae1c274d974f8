"""The command `lint`: print which nodes and tensors in a bundle's graphs a compiler or NPU would refuse."""

import platform
from pathlib import Path

from quadbench.artifacts import Bundle
from quadbench.cli.console import print_answer
from quadbench.cli.options import Options, Subparsers, add_command
from quadbench.errors import BuildError
from quadbench.lint import Severity, lint_bundle, messages
from quadbench.results.manifest import read_checked
from quadbench.target.profile import KnownTarget, broken_profiles, find_target, known_targets, load_profile, load_profiles


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "lint", run)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_DIR", help="the bundle's folder, results/bundles/<digest>")
    of_whom = parser.add_mutually_exclusive_group()
    of_whom.add_argument("--profile", metavar="NAME", help="also apply the rules for the chip of this device profile")
    of_whom.add_argument("--target", metavar="KEY", help="also apply the rules for this target (a key of: targets)")


def run(options: Options) -> int:
    known: KnownTarget | None = None
    if options.target:
        known = find_target(options.target, known_targets(load_profiles(), platform.machine()), broken_profiles())
    htp_arch = known.htp_arch if known else load_profile(options.profile).soc.htp_arch if options.profile else None
    bundle = read_checked(options.bundle, Bundle)
    findings = lint_bundle(bundle, htp_arch=htp_arch, target=known.target if known else None)
    errors = list(messages(findings, Severity.ERROR))
    warnings = list(messages(findings, Severity.WARNING))
    lines = [f"{severity}: {line}" for severity, texts in (("error", errors), ("warning", warnings)) for line in texts]
    summary = f"{len(findings)} graphs: {len(errors)} rules broken, {len(warnings)} warnings"
    print_answer(options, findings, "\n".join([*lines, summary]))
    return BuildError.exit_code if errors else 0
