"""Edits that no fit is made with. A whitening knows the families it was fitted with and finds their copies
more easily than others, so thresholds are set with copies of these.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from .copies import Edit


def frame(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """A frame of one colour around the photo, as wide as `share` of its shorter side."""
    return ImageOps.expand(image, max(1, round(share * min(image.size))), _colour(rng))


def letterbox(image: Image.Image, ratio: float) -> Image.Image:
    """Black bars beside or above and below, until width to height is `ratio`."""
    width, height = image.size
    size = (max(width, round(height * ratio)), max(height, round(width / ratio)))
    canvas = Image.new("RGB", size)
    canvas.paste(image, ((size[0] - width) // 2, (size[1] - height) // 2))
    return canvas


def noise(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    """Gaussian noise, of `deviation` in 0..255, as of a photo in the dark."""
    pixels = np.asarray(image, np.float32)
    return _image(pixels + rng.normal(0, deviation, pixels.shape))


def gamma(image: Image.Image, power: float) -> Image.Image:
    """Darker in the middle tones for powers over 1, lighter under 1."""
    return image.point(lambda value: 255 * (value / 255) ** power)


def tint(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """A filter of one colour: `strength` 1 leaves nothing but that colour's shades."""
    shades = ImageOps.colorize(image.convert("L"), "black", "white", mid=_colour(rng))
    return Image.blend(image, shades, strength)


def sharpen(image: Image.Image, percent: int) -> Image.Image:
    """Edges made stronger, with halos."""
    return image.filter(ImageFilter.UnsharpMask(3, percent, 0))


def pixelate(image: Image.Image, side: int) -> Image.Image:
    """Squares of one colour each, `side` of them along the shorter side."""
    factor = side / min(image.size)
    small = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
    return small.resize(image.size, Image.Resampling.NEAREST)


def posterise(image: Image.Image, bits: int) -> Image.Image:
    """`bits` of each channel are left."""
    return ImageOps.posterize(image, bits)


def erase(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Two rectangles painted over, each of `share` of the area."""
    canvas, draw = (copy := image.copy()), ImageDraw.Draw(copy)
    width, height = image.width * math.sqrt(share), image.height * math.sqrt(share)
    for _ in range(2):
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        draw.rectangle((left, top, left + width, top + height), fill=_colour(rng))
    return canvas


def wave(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Rows pushed aside as a wave does, by up to `share` of the width."""
    pixels = np.asarray(image)
    turns, phase = rng.uniform(1, 3), rng.uniform(0, 2 * math.pi)
    rows = np.arange(image.height)
    pushed = share * image.width * np.sin(2 * math.pi * turns * rows / image.height + phase)
    columns = np.arange(image.width)[None] + np.round(pushed).astype(int)[:, None]
    return Image.fromarray(pixels[rows[:, None], columns.clip(0, image.width - 1)])


def vignette(image: Image.Image, strength: float) -> Image.Image:
    """Corners darker by `strength`."""
    y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    return _image(np.asarray(image, np.float32) * (1 - strength * (x**2 + y**2) / 2)[..., None])


def watermark(image: Image.Image, opacity: float) -> Image.Image:
    """A word all over the photo, half transparent."""
    size = max(8.0, 0.08 * min(image.size))
    written = image.copy()
    draw, font = ImageDraw.Draw(written), ImageFont.load_default(size)
    for number, top in enumerate(np.arange(0, image.height, 2 * size)):
        for left in np.arange(-(number % 2) * 3 * size, image.width, 6 * size):
            draw.text((left, top), "SAMPLE", fill="white", font=font)
    return Image.blend(image, written, opacity)


def webp(image: Image.Image, quality: int) -> Image.Image:
    """Through a WebP file of this quality."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


UNSEEN: Mapping[str, Edit] = {
    "frame": lambda image, rng, _: frame(image, rng.uniform(0.03, 0.15), rng),
    "letterbox": lambda image, rng, _: letterbox(image, float(rng.choice([0.5, 0.6, 1.6, 2.0]))),
    "wave": lambda image, rng, _: wave(image, rng.uniform(0.02, 0.1), rng),
    "gamma": lambda image, rng, _: gamma(image, float(rng.choice([0.35, 0.5, 2.0, 2.8]))),
    "tint": lambda image, rng, _: tint(image, rng.uniform(0.4, 1.0), rng),
    "vignette": lambda image, rng, _: vignette(image, rng.uniform(0.5, 1.0)),
    "erase": lambda image, rng, _: erase(image, rng.uniform(0.05, 0.2), rng),
    "watermark": lambda image, rng, _: watermark(image, rng.uniform(0.4, 0.8)),
    "sharpen": lambda image, rng, _: sharpen(image, int(rng.integers(200, 500))),
    "posterise": lambda image, rng, _: posterise(image, int(rng.integers(1, 4))),
    "noise": lambda image, rng, _: noise(image, rng.uniform(10, 50), rng),
    "pixelate": lambda image, rng, _: pixelate(image, int(rng.integers(24, 64))),
    "webp": lambda image, rng, _: webp(image, int(rng.integers(1, 15))),
}
"""Edits with strengths drawn at random, in the order in which a picture meets them on its way."""


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue
