"""Inputs: folders of evaluation inputs -> cases: listings with wrong values, names and paths, and images that are none."""

import io
import json
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from quadbench.quad.cache import digests_of
from quadbench.quad.inputs import check_references
from quadbench.quad.items import task_items
from quadbench.quad.model.foundation import Foundation, load_foundation
from quadbench.recipe.recipe import load_recipe
from support.bad_input.case import Case
from support.bad_input.specs import NO_FILES
from support.bad_input.values import brief, changed, keys, named, without, wrong_values

_NAMES = (
    "../../outside/x", "a/b", "..", ".", "", "/etc/x", "a\\b", "a\0", "x" * 300, "-rf", " a", "a ", ".hidden", "a\n", "\x1b[31m",
    "é" * 150, "a\u202eb", "con/..",
)  # fmt: skip
_PATHS = ("../../outside/kept", "/etc/passwd", "~/x", "nowhere.png", "a\0b", "x" * 5000, "", ".", "..", "0.png/x", "\udc80")


def input_cases(dice: random.Random, tiny: Path) -> Iterator[Case]:
    """Yield cases of a recipe whose inputs are wrong; its listing, its digests and its items are read, as a build does."""
    listing = json.loads((tiny / "inputs/inputs.json").read_text())
    read = partial(_read, tiny)
    for place, value, wrong in wrong_values(listing, dice, 60):
        is_free = place[-1] == "prompt" or (place[-1] in ("image", "mask") and value is None)
        name = f"inputs with {named(place)} = {brief(value)}"
        yield Case(name=name, act=partial(read, _listing(wrong)), may_pass=is_free)
    for name in _NAMES:
        wrong = [listing[0] | {"name": name}, *listing[1:]]
        yield Case(name=f"an input called {brief(name)}", act=partial(read, _listing(wrong)), names="inputs.json")
    for key in ("image", "mask", "truth"):
        for path in _PATHS:
            wrong = [listing[0] | {key: path}, *listing[1:]]
            yield Case(name=f"an input with {key} {brief(path)}", act=partial(read, _listing(wrong)), may_pass=path == "")
    for place in keys(listing):
        yield Case(name=f"inputs without {named(place)}", act=partial(read, _listing(without(listing, place))))
    yield Case(
        name="two inputs of one name", act=partial(read, _listing([listing[0], listing[0], *listing[1:]])), names="inputs.json"
    )
    yield Case(name="no inputs", act=partial(read, _listing([])))
    yield Case(name="one input, which calibrates", act=partial(read, _listing(listing[:1])))
    for number in range(20):
        content = changed((tiny / "inputs/inputs.json").read_bytes(), dice)
        yield Case(name=f"inputs changed {number}", act=partial(read, {"inputs.json": content}), may_pass=True)
    yield from _pictures(dice, tiny, read)
    for file in ("inputs.json", "0.png", "1.mask.png"):
        for name, make in NO_FILES.items():
            yield Case(name=f"{file} that is {name}", act=partial(_replaced, tiny, file, make), names=file)


def _listing(tree: Any) -> dict[str, bytes]:
    return {"inputs.json": json.dumps(tree).encode("utf-8", "surrogatepass")}


def _pictures(dice: random.Random, tiny: Path, read: Callable[[dict[str, bytes], Path], None]) -> Iterator[Case]:
    right = (tiny / "inputs/0.png").read_bytes()
    for name, content in wrong_images().items():
        for file in ("0.png", "2.mask.png"):
            yield Case(name=f"{file}: {name}", act=partial(read, {file: content}), names=file, may_pass=name in ("a GIF",))
    for number in range(25):
        yield Case(name=f"0.png changed {number}", act=partial(read, {"0.png": changed(right, dice)}), may_pass=True)


def wrong_images() -> dict[str, bytes]:
    """Return contents that are no image of the model's size, by what is wrong."""

    def saved(image: Image.Image, kind: str) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind)
        return buffer.getvalue()

    def png(width: int, height: int) -> bytes:
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunk = b"IHDR" + head
        data = b"IDAT" + zlib.compress(b"\0" * 400)
        parts = [struct.pack(">I", len(head)) + chunk + struct.pack(">I", zlib.crc32(chunk))]
        parts.append(struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data)))
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    return {
        "nothing": b"",
        "text": b"not an image",
        "a signature alone": b"\x89PNG\r\n\x1a\n",
        "another size": saved(Image.new("RGB", (17, 16)), "PNG"),
        "one pixel": saved(Image.new("RGB", (1, 1)), "PNG"),
        "a GIF": saved(Image.new("P", (16, 16)), "GIF"),
        "a bomb": png(50_000, 50_000),
        "a bomb beyond 32 bits": png(2**31 - 1, 2**31 - 1),
        "no pixels": png(0, 0),
        "too little data": png(16, 16),
        "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "a PDF": b"%PDF-1.7\n",
    }


@cache
def _foundation(folder: Path) -> Foundation:
    return load_foundation(folder)


def _read(tiny: Path, files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (_copied(tiny, folder) / name).write_bytes(content)
    _use(tiny, folder)


def _copied(tiny: Path, folder: Path) -> Path:
    shutil.copytree(tiny / "inputs", folder / "inputs", dirs_exist_ok=True)
    for name in ("adapters", "model"):
        if not (folder / name).exists():
            (folder / name).symlink_to(tiny / name)
    return Path(shutil.copyfile(tiny / "recipe.yaml", folder / "recipe.yaml")).parent / "inputs"


def _replaced(tiny: Path, file: str, make: Callable[[Path], object], folder: Path) -> None:
    path = _copied(tiny, folder) / file
    path.unlink()
    make(path)
    _use(tiny, folder)


def _use(tiny: Path, folder: Path) -> None:
    recipe = load_recipe(folder / "recipe.yaml")
    check_references(recipe)
    digests_of(recipe)
    for task in recipe.tasks:
        task_items(task, _foundation(tiny / "model"), calibration_samples=1)
