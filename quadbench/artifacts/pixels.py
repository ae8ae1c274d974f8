"""Pixels: reading untrusted image files as 8-bit arrays, PSNR between images, and blending with inpainting masks."""

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

MAX_PIXELS = 4096 * 4096
"""The most pixels of an image that is opened; a file of a few kilobytes may claim billions."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Accepted image formats, by Pillow's names. Its other readers are never run; the one for EPS starts Ghostscript."""

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # grey, palette and colour of at most 8 bits a channel
_FAILURES = (  # exceptions of Pillow's readers for damaged files, found by damaging files
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError),
    *(EOFError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD_BYTES = 24  # signature, the length and name of the first chunk, width, height

BLEND_EDGE_SHARE = 64
"""The soft edge of a blend mask is the picture's shorter side divided by this: 8 pixels of 512, 1 of 64."""

_HALF = 128  # mask values from here to 255 mark pixels to repaint
_WHOLE = 255  # blend mask value for pixels taken from the decoded picture alone

Pixels = NDArray[np.uint8]  # (H, W, 3)


def png_size(head: bytes) -> tuple[int, int]:
    """Return the width and height in the header of a PNG file, without decoding the image.

    Raises:
        ValueError: this is not a PNG file, or its header claims no pixels or more than MAX_PIXELS.
    """
    if len(head) < _PNG_HEAD_BYTES or head[:8] != _PNG_SIGNATURE:
        raise ValueError("not a PNG file")
    width, height = struct.unpack(">II", head[16:_PNG_HEAD_BYTES])
    _check_size(width, height)
    return width, height


def check_png(path: Path) -> None:
    """Raise ValueError unless a file's header is that of a PNG with 1 to MAX_PIXELS (16.8 million) pixels.

    Raises:
        OSError, ValueError: the file cannot be read, or `png_size` refuses it.
    """
    with path.open("rb") as file:
        png_size(file.read(_PNG_HEAD_BYTES))


def read_pixels(path: Path, mode: str = "RGB") -> Pixels:
    """Read an image file as 8-bit pixels (H, W, 3), or (H, W) for the grey mode `L`, rotated as its EXIF data say.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not a whole image in one of FORMATS, has more than MAX_PIXELS, several frames, more than 8 bits a
            channel, or transparent pixels.
    """
    with open_regular(path) as file:
        try:
            with Image.open(file, formats=FORMATS) as image:
                _check_size(*image.size)
                _check_kind(image)
                return np.array(_require_opaque(ImageOps.exif_transpose(image)).convert(mode))
        except UnidentifiedImageError as error:
            raise ValueError(f"it is not a complete image file; expected one of the formats {', '.join(FORMATS)}") from error
        except _FAILURES as error:
            raise ValueError(str(error) or type(error).__name__) from error


def _check_kind(image: Image.Image) -> None:
    """Raise ValueError for an image with several frames, or with channels of more than 8 bits, which Pillow would clip."""
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise ValueError(f"it has {frames} frames, expected one; save a single frame")
    if image.mode not in _MODES:
        raise ValueError(f"its pixels have the mode {image.mode}, expected grey or RGB of 8 bits; convert it to 8 bits first")


def _require_opaque(image: Image.Image) -> Image.Image:
    """Return the image, as RGBA if it has transparency data, else unchanged. Raise ValueError if any pixel is transparent."""
    if not image.has_transparency_data:
        return image
    colours = image.convert("RGBA")
    least = colours.getchannel("A").getextrema()[0]
    if least != 255:
        raise ValueError(f"it has transparent pixels, with an alpha down to {least}, expected 255; flatten it first")
    return colours


def blend_mask(mask: NDArray[np.bool_]) -> Image.Image:
    """Return a soft-edged 8-bit blend mask for inpainting from a boolean mask (H, W) that is true where to repaint.

    The value is the decoded picture's share: 255 in the whole mask, 0 at more than 2 r pixels from it in rows or columns. r is
    the shorter side divided by BLEND_EDGE_SHARE, at least 1. Between them it falls evenly: the mask grows by r, then a box of 2 r
    + 1 pixels averages it. Blurring alone, as diffusers' `VaeImageProcessor.blur`, would show the input within the mask.
    """
    radius = max(1, min(mask.shape) // BLEND_EDGE_SHARE)
    grown = Image.fromarray(mask.astype(np.uint8) * _WHOLE).filter(ImageFilter.MaxFilter(2 * radius + 1))
    return grown.filter(ImageFilter.BoxBlur(radius))


def composite(picture: Pixels, original: Pixels, blend: Image.Image) -> Pixels:
    """Return a blend of a generated picture and the original, both (H, W, 3). In `blend`, 255 keeps the picture, 0 the original.

    diffusers' `VaeImageProcessor.apply_overlay` gives the same within 1/255.
    """
    share = np.asarray(blend, np.uint32)[..., None]  # (H, W, 1)
    return ((share * picture + (_WHOLE - share) * original + _WHOLE // 2) // _WHOLE).astype(np.uint8)


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"it is {width} x {height} pixels, expected 1 to {MAX_PIXELS} in total")


def mask_of(pixels: Pixels) -> NDArray[np.bool_]:
    """Return a boolean mask (H, W) from a grey mask image that was read as RGB. Values of 128 and more are true: repaint."""
    return pixels[..., 0] >= _HALF


def psnr_db(image: Pixels, other: Pixels, within: NDArray[np.bool_] | None = None) -> float:
    """Return the PSNR of two 8-bit images in dB, at most PSNR_CAP_DB. With a mask `within` (H, W), only its true pixels count."""
    square = (image.astype(np.float64) - other) ** 2
    mean_square = float(np.mean(square if within is None else square[within]))
    return PSNR_CAP_DB if mean_square == 0 else min(PSNR_CAP_DB, float(10 * np.log10(255**2 / mean_square)))


def max_abs_difference(image: Pixels, other: Pixels) -> int:
    """Compare two 8-bit images of equal size. Return the largest absolute difference between their channel values, 0 to 255."""
    return int(np.max(np.abs(image.astype(np.int16) - other)))


def size_of(pixels: Pixels | NDArray[np.bool_]) -> str:
    """Return the image size as `width x height`, for messages."""
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
