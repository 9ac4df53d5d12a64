"""What people do to photos, one edit each: crop, recompress, turn, write on, paste into others.

Each is a pure function of an RGB image; what is random comes from a generator that the caller seeds. How
strong they are and how they are chained is told by `copies`; what no fit is made with stands in `unseen`.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

LONGEST_SIDE = 768
_WORDS = (
    "look at this",
    "best day ever",
    "SALE",
    "follow me",
    "when it is monday",
    "2024",
    "no way!",
    "for sale",
)


def workable(image: Image.Image) -> Image.Image:
    """RGB with at most LONGEST_SIDE pixels a side; of more a network sees no more and edits cost more."""
    image = image.convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return image


def crop(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Keeps `share` of the area, in 0..1, at a place drawn at random."""
    width, height = _scaled(image, math.sqrt(share))
    left = int(rng.integers(image.width - width + 1))
    top = int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def downscale(image: Image.Image, side: int) -> Image.Image:
    """The longer side becomes `side` pixels, or stays when it is shorter."""
    return image.resize(_scaled(image, min(1.0, side / max(image.size))), Image.Resampling.LANCZOS)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Through a JPEG file of this quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def blur(image: Image.Image, share: float) -> Image.Image:
    """Gaussian blur; its deviation is `share` of the shorter side."""
    return image.filter(ImageFilter.GaussianBlur(share * min(image.size)))


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Anticlockwise, the canvas grown to hold the whole photo, its corners black."""
    return image.rotate(degrees, Image.Resampling.BILINEAR, expand=True)


def flip(image: Image.Image) -> Image.Image:
    """Left to right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def grey(image: Image.Image) -> Image.Image:
    """Without colour."""
    return image.convert("L").convert("RGB")


def jitter(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation within 1 +- strength, the hue within strength / 10."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(float(rng.uniform(1 - strength, 1 + strength)))
    turn = int(255 * strength / 10 * rng.uniform(-1, 1))
    hue, *rest = image.convert("HSV").split()
    return Image.merge("HSV", [hue.point(lambda value: (value + turn) % 256), *rest]).convert("RGB")


def caption(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """A white bar with words above or below, as high as `share` of the photo."""
    bar = max(1, round(share * image.height))
    on_top = bool(rng.integers(2))
    canvas = Image.new("RGB", (image.width, image.height + bar), "white")
    canvas.paste(image, (0, bar if on_top else 0))
    _write(canvas, (round(0.05 * image.width), 0 if on_top else image.height), bar * 0.6, "black", rng)
    return canvas


def overlay(image: Image.Image, items: int, rng: np.random.Generator) -> Image.Image:
    """Words and smiling faces on the photo, `items` of each at random places, sizes and colours."""
    canvas = image.copy()
    for _ in range(items):
        _write(canvas, _place(canvas, rng), rng.uniform(0.06, 0.14) * min(canvas.size), _colour(rng), rng)
        _smile(canvas, _place(canvas, rng), rng.uniform(0.1, 0.25) * min(canvas.size))
    return canvas


def screenshot(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The photo as wide as a phone's screen, in an app with a title, a name, buttons and text, light or
    dark."""
    width, height = 360, int(rng.integers(640, 800))
    ground, ink = ("white", "black") if rng.integers(2) else ("#121212", "white")
    screen = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(screen)
    shown = image.resize(_scaled(image, min(width / image.width, 0.7 * height / image.height)))
    top = int(rng.integers(60, max(61, min(160, height - shown.height - 60))))
    screen.paste(shown, ((width - shown.width) // 2, top))
    draw.text((12, 4), "12:34", fill=ink, font=ImageFont.load_default(14))
    draw.rectangle((310, 7, 345, 17), outline=ink)
    draw.ellipse((12, top - 38, 42, top - 8), fill=_colour(rng))
    _write(screen, (52, top - 34), 16, ink, rng)
    for left in (14, 54, 94):
        draw.ellipse(
            (left, top + shown.height + 10, left + 24, top + shown.height + 34), outline=ink, width=2
        )
    for line in range(3):
        _write(screen, (14, top + shown.height + 44 + 24 * line), 14, ink, rng)
    return screen


def composite(image: Image.Image, canvas: Image.Image, scale: float, rng: np.random.Generator) -> Image.Image:
    """The photo pasted into another; it fills `scale` of the width or of the height, whichever fits."""
    pasted = image.resize(
        _scaled(image, scale * min(canvas.width / image.width, canvas.height / image.height))
    )
    left = int(rng.integers(max(1, canvas.width - pasted.width + 1)))
    top = int(rng.integers(max(1, canvas.height - pasted.height + 1)))
    result = canvas.copy()
    result.paste(pasted, (left, top))
    return result


def perspective(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Seen from aside: each corner of the shown part lies up to `strength` of the sides inside the photo."""
    inward = rng.uniform(0, strength, 8) * np.tile((image.width, image.height), 4)
    right, bottom = image.width, image.height
    corners = np.array([0, 0, 0, bottom, right, bottom, right, 0], float)
    signs = np.array([1, 1, 1, -1, -1, -1, -1, 1])
    quad = tuple((corners + signs * inward).tolist())
    return image.transform(image.size, Image.Transform.QUAD, quad, Image.Resampling.BILINEAR)


def _scaled(image: Image.Image, factor: float) -> tuple[int, int]:
    return max(1, round(image.width * factor)), max(1, round(image.height * factor))


def _place(image: Image.Image, rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.uniform(0, 0.8) * image.width), int(rng.uniform(0, 0.8) * image.height)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def _write(
    image: Image.Image,
    place: tuple[int, int],
    size: float,
    colour: str | tuple[int, int, int],
    rng: np.random.Generator,
) -> None:
    font = ImageFont.load_default(max(6.0, size))
    ImageDraw.Draw(image).text(place, str(rng.choice(_WORDS)), fill=colour, font=font)


def _smile(image: Image.Image, place: tuple[int, int], size: float) -> None:
    draw, (x, y) = ImageDraw.Draw(image), place
    draw.ellipse((x, y, x + size, y + size), fill="#ffcc22", outline="#aa7700")
    for eye in (0.32, 0.62):
        draw.ellipse((x + eye * size, y + 0.3 * size, x + (eye + 0.1) * size, y + 0.45 * size), fill="black")
    draw.arc(
        (x + 0.25 * size, y + 0.3 * size, x + 0.75 * size, y + 0.8 * size), 20, 160, fill="black", width=2
    )
