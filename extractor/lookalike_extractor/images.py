"""From the bytes of an image file to the pixels a backbone takes.

    bytes -> sniff (header, limits) -> decode (large JPEGs scaled) -> upright -> `fit` -> [h, w, 3]

All of it is part of the embedding space: two descriptors are comparable only if their pixels were made alike.
Every fault of a file is an ImageError; a decoder's own exceptions and warnings never leave this module.
All functions are pure and may be called from any thread; decoding and resizing release the interpreter lock.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import simplejpeg
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from .errors import (
    ImageCorrupt,
    ImageError,
    ImageFormatUnsupported,
    ImageMissing,
    ImageTooLarge,
    ImageTruncated,
    PixelLimit,
)
from .formats import Layout, png, read_layout, tiff
from .formats.layout import TRANSPOSED
from .preprocessing import Pixels, Preprocessing, fit, region


@dataclass(frozen=True)
class ImageLimits:
    """What a file may ask of us. Both are checked before any memory for pixels is taken."""

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 100_000_000


@dataclass(frozen=True)
class Header:
    """What a file says of itself. Width and height are those of the upright image, in pixels."""

    format: str
    width: int
    height: int
    layout: Layout | None = field(default=None, repr=False, compare=False)
    """How the file stores the picture: what `decode` needs of the header."""


def sniff(data: bytes, limits: ImageLimits = ImageLimits()) -> Header:
    """Reads the header of a file: about 20 microseconds, no memory for pixels.

    Raises:
        ImageMissing, ImageTooLarge, PixelLimit, ImageFormatUnsupported, ImageTruncated, ImageCorrupt.
    """
    layout = _layout(data, limits)
    return Header(layout.format, *layout.upright_size, layout)


def decode(
    data: bytes,
    preprocessing: Preprocessing,
    limits: ImageLimits = ImageLimits(),
    header: Header | None = None,
) -> Pixels:
    """Decodes a whole file into the backbone's input, uint8 [preprocessing.height, preprocessing.width, 3].

    Transparency is laid over white, the EXIF orientation applied, and an animation's first frame taken.

    Args:
        header: what `sniff` said of this file within these limits, so that it is not read again.

    Raises:
        ImageError: one of its subclasses, whatever is wrong with the file.
    """
    layout = header.layout if header and header.layout else _layout(data, limits)
    try:
        if layout.format == "JPEG" and layout.channels != 4:
            pixels = _decode_jpeg(data, layout, preprocessing, limits)
        else:
            pixels = _decode_with_pillow(data, layout, preprocessing, limits)
        return fit(_upright(pixels, layout.orientation), preprocessing)
    except ImageError:
        raise
    except MemoryError:
        raise PixelLimit(f"no memory for {layout.width} x {layout.height} pixels") from None
    except Exception as error:
        raise _told(error, layout) from error


def _layout(data: bytes, limits: ImageLimits) -> Layout:
    if not data:
        raise ImageMissing("the image has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are allowed")
    layout = read_layout(data)
    _check_pixels(layout.width, layout.height, limits)
    return layout


def _check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise PixelLimit(
            f"the image has {width} x {height} pixels; at most {limits.max_pixels:,} are allowed"
        )


def jpeg_scale(layout: Layout, preprocessing: Preprocessing) -> int:
    """1, 2, 4 or 8: stored pixels, each way, for one of ours. Other fractions cost more than they save."""
    if preprocessing.align is not None:
        return 1
    width, height = layout.upright_size
    region_height, region_width = region(height, width, preprocessing)
    margin = preprocessing.jpeg_margin
    reserve = min(region_height / preprocessing.height, region_width / preprocessing.width) / margin
    return next(scale for scale in (8, 4, 2, 1) if reserve >= scale or scale == 1)


def _decode_jpeg(data: bytes, layout: Layout, preprocessing: Preprocessing, limits: ImageLimits) -> Pixels:
    scale = jpeg_scale(layout, preprocessing)
    least_height, least_width = -(-layout.height // scale), -(-layout.width // scale)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, min_height=least_height, min_width=least_width)
        return pixels
    except ValueError as error:
        if "extraneous bytes" not in str(error):
            raise
        # Some cameras leave bytes between segments. Pillow passes over them, and still refuses a cut file.
        return _decode_with_pillow(data, layout, preprocessing, limits)


def _decode_with_pillow(
    data: bytes, layout: Layout, preprocessing: Preprocessing, limits: ImageLimits
) -> Pixels:
    # The plugins are called directly: Image.open would try others and warn by its own pixel limit.
    with _OPENERS[layout.format](data) as image:
        _check_pixels(*image.size, limits)
        if layout.format == "JPEG":
            scale = jpeg_scale(layout, preprocessing)
            image.draft(image.mode, (layout.width // scale, layout.height // scale))
        image.load()
        return _rgb(image)


_OPENERS: Mapping[str, Callable[[bytes], ImageFile.ImageFile]] = {
    "JPEG": lambda data: JpegImageFile(io.BytesIO(data)),
    "PNG": lambda data: PngImageFile(io.BytesIO(png.strip(data))),
    "WEBP": lambda data: WebPImageFile(io.BytesIO(data)),
    "GIF": lambda data: GifImageFile(io.BytesIO(data)),
    "BMP": lambda data: BmpImageFile(io.BytesIO(data)),
    "TIFF": lambda data: TiffImageFile(io.BytesIO(tiff.strip(data))),
}


def _rgb(image: Image.Image) -> Pixels:
    """Pixels of any mode that has an agreed range: 16 bits by their high byte, transparency over white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ImageFormatUnsupported("32-bit samples have no agreed range; save the image with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        image = Image.new("RGB", layered.size, "white")
        image.paste(layered, mask=layered.getchannel("A"))
    return np.array(image.convert("RGB"))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Applies an EXIF orientation, 1..8 (Exif 2.3, tag 274)."""
    if orientation in TRANSPOSED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _told(error: Exception, layout: Layout) -> ImageError:
    """The error that a decoder's exception means."""
    text = str(error)
    lower = text.lower()
    if "premature end of jpeg" in lower or "truncated" in lower:
        return ImageTruncated(f"the {layout.format} ends too early: {text}")
    if "unsupported" in lower or "not supported" in lower:
        return ImageFormatUnsupported(f"this kind of {layout.format} is not read: {text}")
    return ImageCorrupt(f"the {layout.format} cannot be decoded: {text or type(error).__name__}")
