"""From the bytes of an image file to the pixels a backbone takes.

    bytes -> sniff (header, limits) -> decode (large JPEGs scaled) -> upright -> crop or squash -> [h, w, 3]

All of it is part of the embedding space: two descriptors are comparable only if their pixels were made alike.
Every fault of a file is an ImageError; a decoder's own exceptions and warnings never leave this module.
All functions are pure and may be called from any thread; decoding and resizing release the interpreter lock.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
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
    RecipeInvalid,
)
from .formats import Layout, png, read_layout, tiff
from .formats.layout import TRANSPOSED

Pixels = NDArray[np.uint8]
"""[height, width, 3], RGB, upright."""

RESIZES = ("squash", "crop")


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


class Aligner(Protocol):
    """Cuts what is to be described out of a picture (faces.FaceAligner)."""

    def __call__(self, pixels: Pixels, height: int, width: int) -> Pixels:
        """uint8 [h, w, 3] RGB upright -> uint8 [height, width, 3]. Raises ImageError when there is none."""

    def identity(self) -> Mapping[str, Any]:
        """What shapes its answers, for the hash of an embedding space."""


@dataclass(frozen=True)
class Preprocessing:
    """How a backbone wants its images.

    Attributes:
        height, width: of the backbone's input, in pixels.
        resize: "squash" keeps the whole picture and lets its aspect ratio go; "crop" keeps the aspect ratio
            and takes the middle.
        mean, std: of each channel, R G B, in units where white is 1.
        crop: share of the short side that "crop" keeps.
        interpolation: "bilinear" or "bicubic", always antialiased.
        jpeg_margin: a JPEG is decoded at 1/2, 1/4 or 1/8 as long as both sides stay at least this many times
            the target. At 2, descriptors move less than by one more encoding at quality 75.
        align: what cuts out of the picture, in its full size, that which is described; None takes it whole.
    """

    height: int
    width: int
    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: float = 0.875
    interpolation: str = "bilinear"
    jpeg_margin: float = 2.0
    align: Aligner | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not (1 <= self.height <= 4096 and 1 <= self.width <= 4096):
            raise RecipeInvalid(f"the input size {self.height} x {self.width} is outside 1..4096")
        if self.resize not in RESIZES:
            raise RecipeInvalid(f"resize is {self.resize!r}; it must be 'squash' or 'crop'")
        if not 0 < self.crop <= 1:
            raise RecipeInvalid(f"crop is {self.crop}; it must be over 0 and at most 1")
        if min(self.std) <= 0:
            raise RecipeInvalid(f"std is {self.std}; every channel's must be over 0")

    def identity(self) -> Mapping[str, Any]:
        """Everything here that shapes pixels, for the hash of an embedding space."""
        own = asdict(self.unaligned())
        del own["align"]
        aligned = {"align": dict(self.align.identity())} if self.align else {}
        return own | {"antialias": True, "background": "white", "jpeg_scales": [1, 2, 4, 8]} | aligned

    def unaligned(self) -> Preprocessing:
        """The same for pictures in which nothing is looked for."""
        return replace(self, align=None)


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


def fit(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Crops or squashes upright pixels, uint8 [h, w, 3] RGB, to the backbone's input size."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageCorrupt(
            f"pixels are {pixels.dtype} {list(pixels.shape)}; they must be uint8 [height, width, 3]"
        )
    if preprocessing.align is not None:
        return preprocessing.align(pixels, preprocessing.height, preprocessing.width)
    height, width = _region(pixels.shape[0], pixels.shape[1], preprocessing)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    region = pixels[top : top + height, left : left + width]
    size = (preprocessing.height, preprocessing.width)
    if region.shape[:2] == size:
        return np.ascontiguousarray(region)
    # A tensor must be writable and of positive strides.
    region = np.require(region, requirements=["C", "W"])
    planes = torch.from_numpy(region).permute(2, 0, 1)[None]
    resized = F.interpolate(planes, size, mode=preprocessing.interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


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


def _region(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width of the middle part that is resized to the input size."""
    if preprocessing.resize == "squash":
        return height, width
    aspect = preprocessing.width / preprocessing.height
    kept_height = min(height, width / aspect) * preprocessing.crop
    return max(1, round(kept_height)), max(1, min(width, round(kept_height * aspect)))


def _jpeg_scale(layout: Layout, preprocessing: Preprocessing) -> int:
    """1, 2, 4 or 8: stored pixels, each way, for one of ours. Other fractions cost more than they save."""
    if preprocessing.align is not None:
        return 1
    width, height = layout.upright_size
    region_height, region_width = _region(height, width, preprocessing)
    margin = preprocessing.jpeg_margin
    reserve = min(region_height / preprocessing.height, region_width / preprocessing.width) / margin
    return next(scale for scale in (8, 4, 2, 1) if reserve >= scale or scale == 1)


def _decode_jpeg(data: bytes, layout: Layout, preprocessing: Preprocessing, limits: ImageLimits) -> Pixels:
    scale = _jpeg_scale(layout, preprocessing)
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
            scale = _jpeg_scale(layout, preprocessing)
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
