"""Files of so many megabytes -> how long a store takes to send and to fetch them, against a plain copy, as Markdown.

    python bench/store.py [--megabytes 50] [--files 50] [--rounds 5]

A bundle of equal files of random bytes goes into an empty store and from there into an empty results folder, once in a folder and
once at moto's S3 server on this machine; the copy is one of the same files by `shutil.copytree`. The three take turns. Prints the
medians of each round's ratios, as times themselves say more about this machine than about the store.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

from quadbench.artifacts import MIB, Bundle, StoredBundle
from quadbench.farm.store.artifacts import fetch, send
from quadbench.farm.store.objects import Store
from quadbench.farm.store.opening import open_store
from quadbench.results.layout import Layout

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.s3_server import S3Server, running_s3
from support.shared_files import write_shared_bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    size_bytes = options.megabytes * MIB // options.files
    contents = {"profile.json": b"{}", **{f"float/{number}.onnx": os.urandom(size_bytes) for number in range(options.files)}}
    ratios = defaultdict[str, list[float]](list)
    with running_s3() as server:
        os.environ.update(server.environment)
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                for name, ratio in one_round(Path(folder), contents, server).items():
                    ratios[name].append(ratio)
    lines = [f"{options.megabytes} MB in {options.files} files, {options.rounds} rounds, times that of a plain copy", ""]
    lines += ["| what | median | least | most |", "|---|---|---|---|"]
    lines += [f"| {name} | {median(all_):.1f} | {min(all_):.1f} | {max(all_):.1f} |" for name, all_ in ratios.items()]
    sys.stdout.write("\n".join(lines) + "\n")


def one_round(folder: Path, contents: dict[str, bytes], server: S3Server) -> dict[str, float]:
    """Return by what was done how many times longer it took than a plain copy."""
    (folder / "store").mkdir()
    bundle = write_shared_bundle(Layout(folder / "here"), contents=contents)
    copy_s = seconds(lambda: shutil.copytree(bundle.folder, folder / "copy"))
    stores = {"folder": folder / "store", "S3": server.new_bucket()}
    return {
        what: taken_s / copy_s
        for name, source in stores.items()
        for what, taken_s in there_and_back(bundle, name, open_store(source), Layout(folder / name)).items()
    }


def there_and_back(bundle: StoredBundle, name: str, store: Store, layout: Layout) -> dict[str, float]:
    """Return by what was done how many seconds it took."""
    return {
        f"send to {name}": seconds(lambda: send(bundle, store)),
        f"send to {name} again": seconds(lambda: send(bundle, store)),
        f"fetch from {name}": seconds(lambda: fetch(Bundle, bundle.artifact.digest, layout, store)),
    }


def seconds(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
