"""Pictures from outside: read as 8-bit pixels, or refused by what they are; none is read as another picture."""

import io
import json
import os
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence, TiffImagePlugin
from support.bad_input.values import changed
from support.sentences import raising

from quadbench.artifacts import pixels
from quadbench.artifacts.pixels import FORMATS, read_pixels
from quadbench.errors import UserError
from quadbench.quad.inputs import check_references, read_picture, read_recipe

ORIENTATION = 0x0112  # EXIF's tag
RAMP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def colours() -> Image.Image:
    """8 x 8 pixels, all of other colours."""
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    return Image.fromarray(np.stack([values, values * 2, 255 - values], axis=-1))


@pytest.mark.parametrize(
    ("name", "picture", "mode"),
    [
        ("grey.png", Image.fromarray(RAMP), "I;16"),
        ("grey.tiff", Image.fromarray(RAMP), "I;16"),
        ("integers.tiff", Image.fromarray(RAMP.astype(np.int32)), "I"),
        ("float.tiff", Image.fromarray((RAMP / 65535).astype(np.float32)), "F"),
        ("inks.jpg", colours().convert("CMYK"), "CMYK"),
        ("inks.tiff", colours().convert("CMYK"), "CMYK"),
    ],
)
def test_values_that_8_bits_do_not_hold_are_refused_by_their_mode(tmp_path, name, picture, mode):
    picture.save(tmp_path / name)
    with raising(UserError, name, mode, 8):
        read_picture(tmp_path / name, "RGB", 8)


def test_of_a_png_with_16_bits_a_channel_the_upper_8_are_read(tmp_path):
    """Pillow writes none, so this one is made by hand: 1 x 1 pixel, RGB of 16 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = (1).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    pixel = b"\0" + bytes([200, 17, 100, 255, 3, 128])
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixel)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert read_pixels(tmp_path / "deep.png").tolist() == [[[200, 100, 3]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["photograph.png", "photograph.tiff", "photograph.webp"])
def test_a_photograph_is_turned_as_its_orientation_says(tmp_path, orientation, name):
    """The picture is stored turned the other way, so that every orientation shows the same."""
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](colours())
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options: dict[str, Any] = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    stored.save(tmp_path / name, exif=exif, **options)
    assert np.array_equal(read_pixels(tmp_path / name), np.asarray(colours()))


@pytest.mark.parametrize("name", ["moving.png", "moving.webp", "pages.tiff"])
def test_a_file_of_several_frames_is_refused_with_their_number(tmp_path, name):
    frames = [colours(), colours().transpose(Image.Transpose.ROTATE_90)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / name) as saved:
        assert len(list(ImageSequence.Iterator(saved))) == 2
    with raising(ValueError, 2):
        read_pixels(tmp_path / name)


def test_a_format_that_is_not_among_those_that_are_read_is_refused_whatever_its_name(tmp_path):
    for format in ("GIF", "ICO", "PPM", "SPIDER"):
        content = io.BytesIO()
        colours().convert("L" if format == "SPIDER" else "RGB").save(content, format)
        (tmp_path / "it.png").write_bytes(content.getvalue())
        with raising(ValueError, ", ".join(FORMATS)):
            read_pixels(tmp_path / "it.png")


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    content = io.BytesIO()
    colours().save(content, "EPS")
    (tmp_path / "it.png").write_bytes(content.getvalue())
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with raising(ValueError):
        read_pixels(tmp_path / "it.png")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_refused_and_opaque_ones_are_read(tmp_path, mode):
    opaque = colours().convert("L").convert("RGBA")
    opaque.convert(mode).save(tmp_path / "opaque.png")
    assert np.array_equal(read_pixels(tmp_path / "opaque.png"), np.asarray(opaque.convert(mode).convert("RGB")))
    holed = opaque.copy()
    holed.putpixel((3, 4), (0, 0, 0, 77))
    holed.convert(mode).save(tmp_path / "holed.png", **({"transparency": bytes([77] * 256)} if mode == "P" else {}))
    with raising(ValueError, 77, 255):
        read_pixels(tmp_path / "holed.png")


def test_a_mask_is_read_in_grey(tmp_path):
    colours().save(tmp_path / "mask.png")
    assert np.array_equal(read_pixels(tmp_path / "mask.png", "L"), np.asarray(colours().convert("L")))


def test_a_pipe_is_no_picture_and_is_not_waited_for(tmp_path):

    os.mkfifo(tmp_path / "it.png")
    with pytest.raises(OSError, match="regular file"):
        read_pixels(tmp_path / "it.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format", [*FORMATS, "AVIF", "SPIDER", "GIF"])
def test_a_damaged_picture_is_read_or_refused_and_nothing_else(tmp_path, format):
    content, dice = io.BytesIO(), random.Random(format)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    options: dict[str, Any] = {"exif": exif} if format in ("PNG", "JPEG", "WEBP", "TIFF") else {}
    if format == "TIFF":
        options["tiffinfo"] = TiffImagePlugin.ImageFileDirectory_v2()
    colours().convert("L" if format == "SPIDER" else "RGB").save(content, format, **options)
    for _ in range(300):
        (tmp_path / "it.png").write_bytes(changed(content.getvalue(), dice))
        try:
            read = read_pixels(tmp_path / "it.png")
        except ValueError:
            continue
        assert read.dtype == np.uint8
        assert read.shape[2] == 3
        assert 0 < read.shape[0] * read.shape[1] <= pixels.MAX_PIXELS


def spoilt(tiny_recipe: Path, folder: Path, name: str, content: bytes) -> Path:
    """Return a copy of the tiny recipe of which one picture has another content."""
    shutil.copytree(tiny_recipe.parent, folder / "copy")
    (folder / "copy/inputs" / name).write_bytes(content)
    return folder / "copy" / tiny_recipe.name


def png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


WRONG = {
    "nothing": (b"", ()),
    "truncated": (png(Image.new("RGB", (16, 16), "red"))[:-30], ()),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', ()),
    "one pixel": (png(Image.new("RGB", (1, 1))), ("1x1", "16x16")),
    "a huge one": (png(Image.new("1", (5000, 5000))), (5000,)),
    "16 bits": (png(Image.fromarray(np.zeros((16, 16), np.uint16))), ("I;16",)),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("name", ["0.png", "2.mask.png"])
def test_a_check_of_a_recipe_says_which_picture_cannot_be_used(tiny_recipe, tmp_path, what, name):
    content, expected = WRONG[what]
    recipe = spoilt(tiny_recipe, tmp_path, name, content)
    with raising(UserError, name, *expected):
        check_references(read_recipe(recipe))


def test_a_check_of_a_recipe_says_which_mask_replaces_nothing(tiny_recipe, tmp_path):
    recipe = spoilt(tiny_recipe, tmp_path, "2.mask.png", png(Image.new("L", (16, 16))))
    with raising(UserError, "2.mask.png"):
        check_references(read_recipe(recipe))


def test_a_prompt_that_is_far_too_long_is_refused_with_its_place(tiny_recipe, tmp_path):
    listing = json.loads((tiny_recipe.parent / "inputs/inputs.json").read_text())
    listing[1]["prompt"] = "a " * 200_000
    recipe = spoilt(tiny_recipe, tmp_path, "inputs.json", json.dumps(listing).encode())
    with raising(UserError, "inputs.json", "1.prompt", 4096) as refused:
        check_references(read_recipe(recipe))
    assert len(str(refused.value)) < 1000


def test_a_check_of_a_recipe_takes_no_torch(tiny_recipe):
    script = f"""
import sys
from quadbench.quad.inputs import check_references, read_recipe
check_references(read_recipe({str(tiny_recipe)!r}))
print(sorted(set(sys.modules) & {{"torch", "diffusers", "transformers"}}))
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
