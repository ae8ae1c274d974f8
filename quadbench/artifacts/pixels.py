"""Pixels: image files from anywhere as 8-bit pixels, or why they are refused; how far two are apart; blending with a mask."""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from quadbench.spec.files import open_regular

# Equal images have an infinite PSNR, which neither JSON nor every database can hold. One step in one of 512 x 512 x 3 values
# gives 107 dB, one in 64 x 64 x 3 gives 89: at 99 nobody sees a difference.
PSNR_CAP_DB = 99.0

MOST_PIXELS = 4096 * 4096
"""Pixels of an image that is opened; a file of a few kilobytes may claim billions."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Formats that are opened, by Pillow's names. Its readers of others are never run; that of EPS starts Ghostscript."""

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # grey, palette and colour of at most 8 bits a channel
_FAILURES = (  # what Pillow's readers raise for damaged files, found by damaging files
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError),
    *(EOFError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD_BYTES = 24  # signature, the length and name of the first chunk, width, height

BLEND_EDGE_SHARE = 64
"""The soft edge of a blend mask has a radius of this part of the picture's shorter side: 8 pixels of 512, 1 of 64."""

_HALF = 128  # of 255: a mask's pixels from here on are painted anew
_WHOLE = 255  # of a blend mask, where the picture is the decoder's alone

Pixels = NDArray[np.uint8]  # (H, W, 3)


def png_size(head: bytes) -> tuple[int, int]:
    """Return width and height as the beginning of a PNG file says them; nothing is decoded.

    Raises:
        ValueError: it is no PNG file, or claims no pixels or more than MOST_PIXELS.
    """
    if len(head) < _PNG_HEAD_BYTES or head[:8] != _PNG_SIGNATURE:
        raise ValueError("not a PNG file")
    width, height = struct.unpack(">II", head[16:_PNG_HEAD_BYTES])
    _check_size(width, height)
    return width, height


def check_png(path: Path) -> None:
    """Refuse a file that is no PNG of a size that can be opened.

    Raises:
        OSError, ValueError: it cannot be read, or `png_size` refuses it.
    """
    with path.open("rb") as file:
        png_size(file.read(_PNG_HEAD_BYTES))


def read_pixels(path: Path, mode: str = "RGB") -> Pixels:
    """Read an image file as (H, W, 3) pixels of 8 bits; with the mode `L` as (H, W), grey. It is turned as its EXIF data say.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no whole image of one of FORMATS, has more than MOST_PIXELS, more than one frame, more than 8 bits a
            channel, or transparent pixels.
    """
    with open_regular(path) as file:
        try:
            with Image.open(file, formats=FORMATS) as image:
                _check_size(*image.size)
                _check_kind(image)
                return np.array(_opaque(ImageOps.exif_transpose(image)).convert(mode))
        except UnidentifiedImageError as error:
            raise ValueError(f"it is no whole file of one of the formats {', '.join(FORMATS)}") from error
        except _FAILURES as error:
            raise ValueError(str(error) or type(error).__name__) from error


def _check_kind(image: Image.Image) -> None:
    """Refuse what 8-bit pixels cannot hold: several frames, or values of more bits, which Pillow would cut at 255."""
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise ValueError(f"it has {frames} frames, expected one; save the frame that is meant")
    if image.mode not in _MODES:
        raise ValueError(f"its pixels have the mode {image.mode}, expected grey or RGB of 8 bits; convert it to 8 bits before")


def _opaque(image: Image.Image) -> Image.Image:
    """Refuse transparent pixels: what colour they have under their transparency nobody has seen."""
    if not image.has_transparency_data:
        return image
    colours = image.convert("RGBA")
    least = colours.getchannel("A").getextrema()[0]
    if least != 255:
        raise ValueError(f"it has transparent pixels, with an alpha down to {least}, expected 255; flatten it before")
    return colours


def blend_mask(mask: NDArray[np.bool_]) -> Image.Image:
    """Return the decoder's share in each pixel of an inpainted picture, 8-bit grey, for a mask (H, W), true where to paint.

    It is 255 in the whole mask and 0 at more than 2 r pixels from it, in rows and columns alike, r being the shorter side divided
    by BLEND_EDGE_SHARE, at least 1. Between them it falls evenly: the mask grows by r, then a box of 2 r + 1 pixels averages it.
    Blurring alone, as diffusers' `VaeImageProcessor.blur`, would let the input show through within the mask.
    """
    radius = max(1, min(mask.shape) // BLEND_EDGE_SHARE)
    grown = Image.fromarray(mask.astype(np.uint8) * _WHOLE).filter(ImageFilter.MaxFilter(2 * radius + 1))
    return grown.filter(ImageFilter.BoxBlur(radius))


def composite(picture: Pixels, original: Pixels, blend: Image.Image) -> Pixels:
    """Overlay a decoded picture on its original, both (H, W, 3): (blend * picture + (255 - blend) * original) / 255, rounded.

    diffusers' `VaeImageProcessor.apply_overlay` does the same to within 1/255.
    """
    share = np.asarray(blend, np.uint32)[..., None]  # (H, W, 1)
    return ((share * picture + (_WHOLE - share) * original + _WHOLE // 2) // _WHOLE).astype(np.uint8)


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= MOST_PIXELS:
        raise ValueError(f"it is {width} x {height} pixels, expected 1 to {MOST_PIXELS} in all")


def as_mask(pixels: Pixels) -> NDArray[np.bool_]:
    """Return where a mask that was read as RGB, which is grey, has a picture painted anew: true (H, W)."""
    return pixels[..., 0] >= _HALF


def psnr_db(image: Pixels, other: Pixels, within: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio of 8-bit images, in dB, at most PSNR_CAP_DB; `within` (H, W) is true where pixels count."""
    square = (image.astype(np.float64) - other) ** 2
    mean_square = float(np.mean(square if within is None else square[within]))
    return PSNR_CAP_DB if mean_square == 0 else min(PSNR_CAP_DB, float(10 * np.log10(255**2 / mean_square)))


def max_abs_difference(image: Pixels, other: Pixels) -> int:
    """The largest difference of any pixel in any channel, in steps of 1/255."""
    return int(np.max(np.abs(image.astype(np.int16) - other)))


def size_of(pixels: Pixels | NDArray[np.bool_]) -> str:
    """Width x height, for messages."""
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
