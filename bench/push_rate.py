"""Files of so many megabytes -> how fast quadbench pushes them to a virtual device, against `adb push`, as Markdown.

    python bench/push_rate.py [--files 1x64 8x16 200x0.1] [--blocks 8]

Files of random bytes go to the same device, through the same adb server, by quadbench's client and by one `adb push` of them all,
in turn: A B B A. Compression is off in both, as random bytes have none to gain. Prints the geometric mean of the blocks' ratios
with its interval at 95 %, as rates themselves say more about this machine than about the clients.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from quadbench.artifacts import MIB
from quadbench.devices import Device
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.results.layout import Layout
from quadbench.statistics.launch_comparison import compare_launches

THERE = "/data/local/tmp/push-rate"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="+", default=["1x64", "8x16", "200x0.1"], help="sets of files, each COUNTxMEGABYTES")
    parser.add_argument("--blocks", type=int, default=8)
    options = parser.parse_args()
    lines = [
        "| files | quadbench, MB/s | adb push, MB/s | rate of quadbench over adb push | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder) / "results")
        with connect(parse_addresses(["virtual:s25?data_mb=512"]), layout=layout) as (device,):
            server = layout.device(device.serial).resolve() / "system" / "run" / "adb.sock"
            for files in options.files:
                count, megabytes = files.split("x")
                lines.append(one_set(Path(folder), int(count), float(megabytes), device, server, options.blocks))
    sys.stdout.write("\n".join(lines) + "\n")


def one_set(folder: Path, count: int, megabytes: float, device: Device, server: Path, blocks: int) -> str:
    """Push a set of files by both, in turn, and return a line of the table."""
    sources = [folder / f"file-{number}" for number in range(count)]
    for source in sources:
        source.write_bytes(os.urandom(int(megabytes * MIB)))
    adb = ["adb", "push", "-Z", *map(str, sources), f"{THERE}/adb/"]
    environment = {**os.environ, "ADB_SERVER_SOCKET": f"localfilesystem:{server}"}

    def by_quadbench() -> None:
        device.push({f"{THERE}/quadbench/{source.name}": source for source in sources})

    def by_adb() -> None:
        subprocess.run(adb, env=environment, check=True, capture_output=True)

    device.shell(["mkdir", "-p", f"{THERE}/adb", f"{THERE}/quadbench"], 10)
    ways: dict[str, Callable[[], None]] = {"quadbench": by_quadbench, "adb": by_adb}
    taken_s: dict[str, list[float]] = {name: [] for name in ways}
    for name in ("quadbench", "adb", *("quadbench", "adb", "adb", "quadbench") * blocks):  # the first of each makes the files
        began = time.monotonic()
        ways[name]()
        taken_s[name].append(time.monotonic() - began)
    for source in sources:
        source.unlink()
    device.shell(["rm", "-r", THERE], 60)
    ours, theirs = taken_s["quadbench"][1:], taken_s["adb"][1:]
    told = compare_launches(ours, theirs)
    rates = [f"{count * megabytes / median(seconds):.0f}" for seconds in (ours, theirs)]
    interval = f"{told.low:.3f} to {told.high:.3f}" if told.low and told.high else "one block has none"
    return f"| {count} of {megabytes:g} MB | {' | '.join(rates)} | {told.ratio:.3f} | {interval} |"


if __name__ == "__main__":
    main()
