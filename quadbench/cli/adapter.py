"""Adapter: a LoRA and a bundle -> the bundle with that LoRA, on devices where any are named."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from quadbench import pipeline
from quadbench.cli.options import add_command, add_group, addresses
from quadbench.console import RunConsole, print_json, print_text


def add(commands: Any) -> None:
    """`quadbench adapter ...`."""
    actions = add_group(commands, "adapter", "add adapters to a bundle that is built")
    admit = add_command(actions, "admit", run_admit, "quantize an adapter under a bundle's frozen profile, and push it")
    admit.add_argument("name", help="what the adapter shall be called")
    admit.add_argument("folder", type=Path, help="a PEFT folder")
    admit.add_argument("--bundle", type=Path, metavar="DIR", help="the bundle's folder (default: that of the latest run)")
    admit.add_argument("--devices", default="", metavar="A,B", help="where to push it (default: nowhere)")


def run_admit(options: argparse.Namespace) -> int:
    with RunConsole(Console(stderr=True)) as observer:
        admission, deployments = pipeline.admit(
            options.name, options.folder, options.bundle, addresses(options.devices), results=options.results, observer=observer
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
