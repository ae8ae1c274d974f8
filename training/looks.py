"""Looks: an emoji -> its line drawing, its sticker, its cyanotype, its variations, and the word for its colour."""

import math
import random
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageFilter

from training.corpus import SIZE, flatten

# A gradient below the first counts as shading, from the second on as a line; a Sobel filter's step of full contrast gives 1.
FAINT_EDGE, FULL_EDGE = 0.06, 0.22
STICKER_BACKGROUND, STICKER_SIZE, OUTLINE_PIXELS = (85, 172, 238), 56, 3
# Evenly spaced from black to white. Colours have to be such as the autoencoder knows: magenta and orange on teal came back from
# it with 17 dB, these on white with 30.
CYANOTYPE_TONES = np.array([(20, 30, 70), (40, 90, 170), (110, 180, 235), (225, 242, 255)], float)
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
# A variation is turned so far in degrees, and each axis becomes shorter by up to so much.
MOST_TURN, MOST_SHORTER = 20.0, 0.2
# Words that the base has seen in captions. The values are what emoji call so, not those of a standard.
COLOURS = {
    "red": (221, 46, 68), "orange": (245, 140, 30), "yellow": (255, 204, 77), "green": (119, 178, 85), "blue": (60, 130, 220),
    "purple": (150, 100, 200), "brown": (150, 95, 60), "black": (40, 45, 50), "white": (245, 245, 245), "grey": (150, 160, 170),
    "pink": (240, 150, 180),
}  # fmt: skip


def sketch(cutout: Image.Image) -> np.ndarray:
    """Dark lines on white (64, 64, 3) where colour or opacity changes; of the colours themselves nothing is left."""
    strength = np.maximum(_gradient(flatten(cutout)), _gradient(np.asarray(cutout.getchannel("A"))[..., None]))
    ink = np.clip((_thinned(strength) - FAINT_EDGE) / (FULL_EDGE - FAINT_EDGE), 0, 1)
    return np.repeat((255 * (1 - 0.85 * ink))[..., None], 3, 2).round().astype(np.uint8)


def sticker(cutout: Image.Image) -> np.ndarray:
    """The emoji, smaller, with a thick white outline on one plain blue (64, 64, 3)."""
    canvas = Image.new("RGBA", (SIZE, SIZE))
    small = cutout.resize((STICKER_SIZE, STICKER_SIZE), Image.Resampling.LANCZOS)
    canvas.paste(small, ((SIZE - STICKER_SIZE) // 2,) * 2)
    outline = canvas.getchannel("A").filter(ImageFilter.MaxFilter(2 * OUTLINE_PIXELS + 1)).filter(ImageFilter.GaussianBlur(1))
    picture = Image.new("RGBA", (SIZE, SIZE), STICKER_BACKGROUND)
    picture.paste("white", mask=outline)
    return np.asarray(Image.alpha_composite(picture, canvas).convert("RGB"))


def cyanotype(cutout: Image.Image) -> np.ndarray:
    """Brightness as a tone from navy to pale blue, on white (64, 64, 3)."""
    place = flatten(cutout) @ LUMA / 255 * (len(CYANOTYPE_TONES) - 1)
    tones = [np.interp(place, range(len(CYANOTYPE_TONES)), channel) for channel in CYANOTYPE_TONES.T]
    opacity = np.asarray(cutout.getchannel("A"))[..., None] / 255
    return (opacity * np.stack(tones, 2) + (1 - opacity) * 255).round().astype(np.uint8)


def varied(cutouts: Mapping[str, Image.Image], rng: random.Random, *, is_recoloured: bool) -> dict[str, Image.Image]:
    """The emoji of all styles turned and squeezed in the same way, and with the same other hues, as if there were more emoji."""
    hue, angle = rng.randrange(256) if is_recoloured else None, math.radians(rng.uniform(-MOST_TURN, MOST_TURN))
    across, down = (1 - rng.uniform(0, MOST_SHORTER) for _ in range(2))
    inverse = np.array([[math.cos(angle) / across, math.sin(angle) / across], [-math.sin(angle) / down, math.cos(angle) / down]])
    middle = (SIZE - 1) / 2
    offset = middle - inverse @ (middle, middle)
    affine = (*inverse[0], offset[0], *inverse[1], offset[1])
    return {style: _moved(cutout if hue is None else _hue_turned(cutout, hue), affine) for style, cutout in cutouts.items()}


def _hue_turned(cutout: Image.Image, turn: int) -> Image.Image:
    hue, saturation, value = cutout.convert("RGB").convert("HSV").split()
    turned = Image.merge("HSV", (hue.point([(level + turn) % 256 for level in range(256)]), saturation, value)).convert("RGB")
    turned.putalpha(cutout.getchannel("A"))
    return turned


def _moved(cutout: Image.Image, affine: tuple[float, ...]) -> Image.Image:
    """Premultiplied meanwhile, so that the colour of clear pixels bleeds into none."""
    return (
        cutout.convert("RGBa").transform(cutout.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR).convert("RGBA")
    )


def colour_word(cutout: Image.Image) -> str:
    """The colour of COLOURS that most of the opaque pixels are nearest to."""
    pixels = np.asarray(cutout).reshape(-1, 4)
    opaque = pixels[pixels[:, 3] > 127, :3].astype(float)
    palette = np.array(list(COLOURS.values()), float)
    nearest = ((opaque[:, None] - palette) ** 2).sum(2).argmin(1)
    return list(COLOURS)[int(np.bincount(nearest, minlength=len(COLOURS)).argmax())]


def _gradient(picture: np.ndarray) -> np.ndarray:
    """(H, W, C) uint8 -> Sobel magnitude (H, W), 0 to about 1, of the channel that changes most."""
    x = np.pad(picture.astype(float) / 255, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = x[:, 2:] - x[:, :-2]
    down = x[2:] - x[:-2]
    smooth_across = (across[:-2] + 2 * across[1:-1] + across[2:]) / 4
    smooth_down = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 4
    return np.hypot(smooth_across, smooth_down).max(2)


def _thinned(strength: np.ndarray) -> np.ndarray:
    """Fade to a third what is not a ridge in one of the two directions, so that lines stay about a pixel wide."""
    padded = np.pad(strength, 1)
    is_ridge_across = (strength >= padded[1:-1, :-2]) & (strength >= padded[1:-1, 2:])
    is_ridge_down = (strength >= padded[:-2, 1:-1]) & (strength >= padded[2:, 1:-1])
    return np.where(is_ridge_across | is_ridge_down, strength, strength / 3)
