"""Specs: recipes and device profiles -> cases: YAML with wrong values, keys, types and bytes, and what is no file at all."""

import json
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from quadbench.recipe.recipe import load_recipe
from quadbench.target.profile import PROFILES_FOLDER, load_profile
from support.bad_input.case import Case
from support.bad_input.values import brief, changed, keys, named, without, write_sparse, wrong_values
from support.tiny_model import RECIPE

_MAY_BE_LEFT_OUT = {
    "guidance",
    "strength",
    "baselines",
    "measure",
    "runtime",
    "headroom",
    "gauge",
    "notes",
    "alternatives",
    "htp_arch",
}
_MAY_BE_LEFT_OUT |= {
    "hosted_target",
    "warmup",
    "iterations",
    "launches",
    "switches",
    "order",
    "threads",
    "timeout_s",
    "properties",
}
_MAY_BE_LEFT_OUT |= {"calibration", "samples"}
# Texts that are free: another text is right there too, and so is null where nothing is a value.
_FREE = {"title", "vendor", "model", "device", "prompts", "ram_mb", "notes", "match", "properties", "soc_model"}

TEXTS = {
    "an empty file": "",
    "a list": "- a\n- b\n",
    "a word": "recipe",
    "an alias bomb": "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n",
    "a merge": "base: &b {a: 1}\nx: {<<: *b}\n",
    "a tag of Python": "schema_version: !!python/object/apply:os.system ['touch outside']\n",
    "a binary": "schema_version: !!binary aGk=\n",
    "a set": "schema_version: !!set {a}\n",
    "deep brackets": "a: " + "[" * 10_000 + "]" * 10_000,
    "deep keys": "".join("  " * i + f"k{i}:\n" for i in range(400)),
    "a key twice": "schema_version: 1\nschema_version: 1\n",
    "a key that is a list": "? [a, b]\n: 1\n",
    "a tab": "schema_version:\t1\n\tname: x\n",
    "a control character": "schema_version: 1\nname: \x07\n",
    "an octal": "schema_version: 01\nname: x\n",
    "a sexagesimal": "schema_version: 1:30\nname: x\n",
    "two documents": "schema_version: 1\n---\nschema_version: 1\n",
    "an open quote": 'schema_version: 1\nname: "x\n',
    "a number of many digits": f"schema_version: {'9' * 5000}\n",
    "a float too large": "schema_version: 1e999\n",
    "a number of another version": "schema_version: 2\n",
    "a truth as version": "schema_version: true\n",
    "an escape that is none": 'schema_version: "\\q"\n',
    "a directive": "%YAML 9.9\n---\nschema_version: 1\n",
    "an anchor without an end": "&\n",
    "a key of many characters": f"{'k' * 5000}: 1\n",
    "markup of a terminal": "schema_version: 1\n'\x1b[31m[/red]': 1\n",
    "a null character": "schema_version: 1\0\n",
    "a half of a character": 'schema_version: 1\nname: "\\ud800"\n',
    "a long name": f"schema_version: 1\nname: {'n' * 2000}\n",
}
Load = Callable[[Path], object]


def spec_cases(dice: random.Random) -> Iterator[Case]:
    """Yield cases of recipes and profiles, in no particular order."""
    profile = (PROFILES_FOLDER / "s25.yaml").read_text()
    for kind, load, text, count in (("recipe", load_recipe, RECIPE, 90), ("profile", load_profile, profile, 50)):
        tree = yaml.safe_load(text)
        yield from _texts(kind, load)
        yield from _no_files(kind, load)
        yield from _wrong(kind, load, tree, dice, count)
        for place in keys(tree):
            if not {str(part) for part in place} & (_MAY_BE_LEFT_OUT | _FREE):
                yield _of_tree(f"{kind} without {named(place)}", load, without(tree, place))
        for number in range(40):
            content = changed(text.encode(), dice)
            yield Case(name=f"{kind} changed {number}", act=partial(_write_and_load, load, content), may_pass=True)


def _wrong(kind: str, load: Load, tree: Any, dice: random.Random, count: int) -> Iterator[Case]:
    for place, value, changed_tree in wrong_values(tree, dice, count):
        is_free = bool({str(part) for part in place} & (_FREE | _MAY_BE_LEFT_OUT)) or place[-1] in ("path", "adapter")
        yield _of_tree(f"{kind} with {named(place)} = {brief(value)}", load, changed_tree, may_pass=is_free)


def _of_tree(name: str, load: Load, tree: Any, *, may_pass: bool = False) -> Case:
    # JSON is YAML but for NaN and Infinity, which YAML writes with a dot.
    text = json.dumps(tree).replace("NaN", ".nan").replace("-Infinity", "-.inf").replace("Infinity", ".inf")
    return Case(name=name, act=partial(_write_and_load, load, text.encode()), names="spec.yaml", may_pass=may_pass)


def _texts(kind: str, load: Load) -> Iterator[Case]:
    for name, text in TEXTS.items():
        content = text.encode("utf-8", "surrogatepass")
        yield Case(name=f"{kind}: {name}", act=partial(_write_and_load, load, content), names="spec.yaml")
    for name, content in {
        "UTF-16": "schema_version: 1\n".encode("utf-16"),
        "Latin-1": b"name: \xe9\n",
        "noise": bytes(range(256)),
    }.items():
        yield Case(name=f"{kind} in {name}", act=partial(_write_and_load, load, content), names="spec.yaml")


def _write_and_load(load: Load, content: bytes, folder: Path) -> None:
    path = folder / "spec.yaml"
    path.write_bytes(content)
    load(path)


def _no_files(kind: str, load: Load) -> Iterator[Case]:
    for name, make in NO_FILES.items():

        def act(folder: Path, make: Callable[[Path], object] = make) -> None:
            path = folder / "spec.yaml"
            make(path)
            load(path)

        yield Case(name=f"{kind} that is {name}", act=act, names="spec.yaml")
    for path in ("x" * 300 + ".yaml", "a\0b.yaml", "/proc/self/mem.yaml", "./" + "d/" * 3000 + "r.yaml"):
        yield Case(name=f"{kind} at {path[:20]!r}", act=lambda _folder, path=path: load(Path(path)))


NO_FILES: dict[str, Callable[[Path], object]] = {
    "not there": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a terabyte of nothing": write_sparse,
}
