"""The command `harness`: build the native program that runs graphs on devices, for one ABI."""

import platform

from quadbench.cli.console import print_answer
from quadbench.cli.options import Options, Subparsers, add_abi, add_action, add_group
from quadbench.target.abi import Abi, host_abi


def add(commands: Subparsers) -> None:
    actions = add_group(commands, "harness")
    build = add_action(actions, "build", run_build, "build the harness for this machine or an ABI, and print its path")
    add_abi(build, host_abi(platform.machine()))


def run_build(options: Options) -> int:
    from quadbench.harness.program import ensure_harness

    path = ensure_harness(options.layout.programs, Abi(options.abi))
    print_answer(options, {"harness": str(path)}, str(path))
    return 0
