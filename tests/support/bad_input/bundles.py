"""Bundles: a right bundle -> cases: manifests with wrong values and bytes, and any file of it changed, at every stage."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from quadbench import pipeline
from quadbench.artifacts import Bundle, StoredBundle
from quadbench.artifacts.run_record import file_refs
from quadbench.cli import build_parser
from quadbench.errors import QuadbenchError
from quadbench.quad.admit import judge_candidate
from quadbench.quad.candidate import Candidate
from quadbench.results.layout import Layout
from quadbench.results.manifest import CHECKSUM, MANIFEST, check_contents, read_manifest
from quadbench.target.profile import known_targets, local_profile
from support.bad_input.case import Case
from support.bad_input.specs import NO_FILES
from support.bad_input.values import brief, changed, keys, named, without, wrong_values
from support.watcher import Silent

Stage = Callable[[Path, Path], object]  # a bundle's folder and a results folder


def bundle_cases(dice: random.Random, bundle: StoredBundle) -> Iterator[Case]:
    """Yield cases of a copy of the bundle whose manifest, checksum or files are wrong."""
    text = (bundle.folder / MANIFEST).read_text()
    tree = json.loads(text)
    for place, value, wrong in wrong_values(tree, dice, 80):
        content = json.dumps(wrong, indent=1).encode()
        yield Case(name=f"manifest with {named(place)} = {brief(value)}", act=partial(_with, bundle, MANIFEST, content))
    places = list(keys(tree))
    for place in dice.sample(places, 40):
        content = json.dumps(without(tree, place), indent=1).encode()
        yield Case(name=f"manifest without {named(place)}", act=partial(_with, bundle, MANIFEST, content))
    for number in range(30):
        content = changed(text.encode(), dice)
        is_same = content == text.encode()
        yield Case(name=f"manifest changed {number}", act=partial(_with, bundle, MANIFEST, content), may_pass=is_same)
    for content in (b"", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 10**6, b'{"schema_version": 1e999}'):
        yield Case(name=f"manifest {content[:20]!r}", act=partial(_with, bundle, MANIFEST, content), names=MANIFEST)
        yield Case(name=f"checksum {content[:20]!r}", act=partial(_with, bundle, CHECKSUM, content), names=CHECKSUM)
    for file in (MANIFEST, bundle.artifact.profile.path, bundle.artifact.graphs[0].file.path):
        for name, make in NO_FILES.items():
            yield Case(name=f"{file} that is {name}", act=partial(_replaced, bundle, file, make), names=file)


def flipped_cases(dice: random.Random, bundle: StoredBundle, adapter: Path) -> Iterator[Case]:
    """Yield, for every file of the bundle and every stage that uses it, a case in which one byte of it is another."""
    artifact = bundle.artifact
    tasks, graphs = {f.path for f in file_refs(artifact.tasks)}, {f.path for f in file_refs(artifact.graphs)}
    quantized = {f.path for graph in artifact.graphs if graph.variant.is_quantized for f in file_refs(graph)}
    everything = {f.path for f in file_refs(artifact)} | {MANIFEST, CHECKSUM}
    own = {MANIFEST, CHECKSUM}
    stages: dict[str, tuple[Stage, set[str]]] = {
        "lint": (_lint, quantized | own),
        "inspect": (partial(_inspect, adapter), {artifact.profile.path} | own),
        "admit": (partial(_admit, adapter), everything),
        "compile": (_compile, quantized | own),
        "check": (_check, everything),
    }
    assert tasks | graphs <= everything
    for stage, (act, files) in stages.items():
        for file in sorted(files):
            names = MANIFEST if file == CHECKSUM else file
            if file == MANIFEST:
                names = "{folder}"  # a changed path or size is told of the file that it is about
            yield Case(name=f"{stage}: {file}", act=partial(_flipped, bundle, file, dice.random(), act), names=names)


def _copied(bundle: StoredBundle, folder: Path) -> Path:
    return Path(shutil.copytree(bundle.folder, folder / "results/bundles/b"))


def _with(bundle: StoredBundle, file: str, content: bytes, folder: Path) -> None:
    copied = _copied(bundle, folder)
    (copied / file).write_bytes(content)
    _check(copied, folder / "results")


def _replaced(bundle: StoredBundle, file: str, make: Callable[[Path], object], folder: Path) -> None:
    copied = _copied(bundle, folder)
    (copied / file).unlink()
    make(copied / file)
    _check(copied, folder / "results")


def _flipped(bundle: StoredBundle, file: str, where: float, stage: Stage, folder: Path) -> None:
    """Give a bundle with one other byte to a stage; nothing that it makes may stay in the results folder."""
    copied, results = _copied(bundle, folder), folder / "results"
    content = bytearray((copied / file).read_bytes())
    content[int(where * len(content))] ^= 0x04
    (copied / file).write_bytes(content)
    try:
        stage(copied, results)
    except QuadbenchError:
        stored = [str(path.relative_to(results)) for path in results.rglob("*") if not path.is_relative_to(copied)]
        if left := set(stored) - {"bundles", "compiled"}:
            raise AssertionError(f"it left {sorted(left)}") from None
        raise


def _lint(folder: Path, _results: Path) -> None:
    options = build_parser(["lint"]).parse_args(["lint", str(folder)])
    options.run(options)


def _inspect(adapter: Path, folder: Path, _results: Path) -> None:
    judge_candidate(Candidate(source=adapter), read_manifest(folder, Bundle))


def _admit(adapter: Path, folder: Path, results: Path) -> None:
    candidate = Candidate(source=adapter, name="another")
    pipeline.admit(candidate, read_manifest(folder, Bundle), [], layout=Layout(results), observer=Silent())


def _compile(folder: Path, results: Path) -> None:
    target = known_targets([local_profile()], "x86_64")[0]
    pipeline.ensure_compiled(folder, target, layout=Layout(results), observer=Silent())


def _check(folder: Path, _results: Path) -> None:
    stored = read_manifest(folder, Bundle)
    check_contents(stored, file_refs(stored.artifact))
