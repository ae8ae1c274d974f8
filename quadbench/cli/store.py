"""The command `store`: show, send, fetch and garbage-collect artifacts in the store of $QUADBENCH_STORE."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from quadbench.artifacts import MIB
from quadbench.artifacts.safe_text import one_line
from quadbench.cli.console import print_answer, print_json, print_text
from quadbench.cli.options import Options, Subparsers, add_action, add_group, counted, duration_s
from quadbench.farm.store import artifacts, collection
from quadbench.farm.store.objects import OBJECTS, RUNS
from quadbench.farm.store.opening import required_store
from quadbench.results.bundles import frozen_digests
from quadbench.results.engine import database_exists, database_of, open_db, open_for_reading
from quadbench.results.nights import NightStore


def add(commands: Subparsers) -> None:
    actions = add_group(commands, "store")
    add_action(actions, "status", run_status, "show the store's address and contents")
    sending = add_action(actions, "send", run_send, "send bundles, compiled bundles or kits")
    sending.add_argument("folders", nargs="+", type=Path, metavar="BUNDLE_DIR", help="the folder of an artifact")
    fetching = add_action(actions, "fetch", run_fetch, "fetch an artifact into the results folder and print its folder")
    fetching.add_argument("digest", metavar="DIGEST", help="the beginning of the artifact's digest")
    collecting = add_action(
        actions, "collect", run_collect, "remove files that nobody needs, a day after a first call found them unused"
    )
    collecting.add_argument(
        "names", nargs="*", metavar="NAME", help="beginnings of digests and run ids to keep, however old they are"
    )
    collecting.add_argument(
        "--keep", type=duration_s, required=True, metavar="TIME", help="keep what was sent within this time, such as 90d"
    )
    collecting.add_argument("--dry-run", action="store_true", help="list what would be removed, without removing it")


def run_status(options: Options) -> int:
    store = required_store()
    objects, launches = store.place.listed(OBJECTS), len(store.place.listed(RUNS))
    kinds = Counter(kind for kind, _ in artifacts.artifacts(store))
    size_bytes = sum(file["size"] for file in objects)
    answer = {"store": store.name, "objects": len(objects), "size_bytes": size_bytes, "artifacts": kinds, "launches": launches}
    size = f"{counted(len(objects), 'object')}, {_size(size_bytes)}"
    named = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no artifacts"
    print_answer(options, answer, f"{store.name} is reachable: {size}; {named}; launches: {launches}")
    return 0


def run_send(options: Options) -> int:
    store = required_store()
    stored = [artifacts.read_any(folder) for folder in options.folders]
    rows = [(one.artifact.kind, one.artifact.digest, artifacts.send(one, store)) for one in stored]
    if options.json:
        print_json([{"kind": kind, "digest": digest, **asdict(sent)} for kind, digest, sent in rows])
    for kind, digest, sent in () if options.json else rows:
        there = f"{_size(sent.present_bytes)} there already"
        print_text(f"{one_line(f'{kind} {digest}')}: {counted(sent.files, 'file')} sent, {_size(sent.sent_bytes)}; {there}")
    return 0


def run_fetch(options: Options) -> int:
    store = required_store()
    kind, digest = artifacts.named(options.digest, store)
    stored = artifacts.fetch(artifacts.KINDS[kind], digest, options.layout, store)
    answer = {"kind": kind, "digest": digest, "folder": str(stored.folder), "is_reused": stored.is_reused}
    print_answer(options, answer, f"{kind} {digest} {'was' if stored.is_reused else 'is'} here: {stored.folder}")
    return 0


def run_collect(options: Options) -> int:
    referred = set(frozen_digests(options.layout))
    if database_exists(database_of(options.layout)):
        with open_db(options.layout, open_for_reading) as engine:
            referred |= NightStore(engine).referenced()
    collected = collection.collect(
        required_store(), options.keep, keep=options.names, referred=referred, is_dry_run=options.dry_run
    )
    if options.json:
        print_json({**asdict(collected), "is_dry_run": options.dry_run})
        return 0
    would = "would be " if options.dry_run else ""
    for what, keys, size_bytes in (
        ("removed", collected.removed, collected.removed_bytes),
        ("condemned, to be removed by a collection in a day", collected.condemned, collected.condemned_bytes),
    ):
        for key in keys:
            print_text(f"{one_line(key)} {would or 'is '}{what.partition(',')[0]}")
        print_text(f"{would}{what}: {counted(len(keys), 'file')}, {_size(size_bytes)}")
    return 0


def _size(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.1f} MB"
