"""Whatever holds a picture on the user's side, turned into the message that carries it.

A picture is a path (str or Path: the file is read when its turn comes), the bytes of an image file, a PIL
image, or an array: uint8 [h, w, 3] in RGB order, or [h, w] in grey.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import ImageUnusable
from lookalike.v1 import types_pb2

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

    ImageLike: TypeAlias = str | os.PathLike[str] | bytes | PilImage | NDArray[np.uint8]
else:
    ImageLike = Any

_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


def is_image(value: object) -> bool:
    """Whether `value` is one picture, and not a list of them."""
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray) or _is_pil(
        value
    )


def source_of(image: object, index: int) -> str:
    """How messages name this picture: by its path, else by its place in the caller's list."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"images[{index}]"


def image_to_wire(image: ImageLike, max_bytes: int) -> types_pb2.Image:
    """The message for one picture.

    Raises ImageUnusable when it cannot be read, is no picture, or its file has more than `max_bytes` bytes.
    """
    if isinstance(image, str | os.PathLike):
        return types_pb2.Image(data=_read(Path(image), max_bytes))
    if isinstance(image, bytes | bytearray | memoryview):
        return types_pb2.Image(data=_within(bytes(image), max_bytes))
    if isinstance(image, np.ndarray):
        return types_pb2.Image(pixels=_pixels(image))
    if _is_pil(image):
        return types_pb2.Image(data=_within(_png(image), max_bytes))
    raise ImageUnusable(
        f"{type(image).__name__} is no picture: give a path, a file's bytes, a PIL image or a uint8 array",
        "IMAGE_TYPE_UNKNOWN",
    )


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise _too_large(size, max_bytes)
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageUnusable("there is no such file", "FILE_NOT_FOUND") from None
    except IsADirectoryError:
        raise ImageUnusable("this is a folder, not an image file", "FILE_UNREADABLE") from None
    except OSError as error:
        raise ImageUnusable(f"the file cannot be read: {error.strerror}", "FILE_UNREADABLE") from None


def _within(data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise _too_large(len(data), max_bytes)
    return data


def _too_large(size: int, max_bytes: int) -> ImageUnusable:
    return ImageUnusable(
        f"the image has {size:,} bytes, the server takes at most {max_bytes:,}; make it smaller or raise the "
        "server's max_image_bytes",
        "IMAGE_TOO_LARGE",
    )


def _pixels(array: NDArray[Any]) -> types_pb2.Tensor:
    rgb = np.stack([array] * 3, axis=-1) if array.ndim == 2 else array
    if array.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ImageUnusable(
            f"pixels are uint8 [h, w, 3] or [h, w], not {array.dtype} {list(array.shape)}{_remedy(array)}",
            "IMAGE_PIXELS_INVALID",
        )
    return types_pb2.Tensor(dtype=types_pb2.DATA_TYPE_UINT8, shape=rgb.shape, data=rgb.tobytes())


def _remedy(array: NDArray[Any]) -> str:
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        return "; move the channels to the end with .transpose(1, 2, 0)"
    if array.ndim == 3 and array.shape[2] == 4:
        return "; leave the alpha channel out with [..., :3]"
    if array.ndim == 4:
        return "; give several pictures as a list"
    if np.issubdtype(array.dtype, np.floating):
        return "; scale to 0..255 and convert with .astype('uint8')"
    return ""


def _is_pil(value: object) -> bool:
    """By the names of its classes, so that PIL is never imported here."""
    return any(f"{c.__module__}.{c.__qualname__}" == "PIL.Image.Image" for c in type(value).__mro__)


def _png(image: PilImage) -> bytes:
    """With transparency and EXIF orientation, so that the server treats it as it treats files."""
    try:
        savable = image if image.mode in _PNG_MODES else image.convert("RGB")
        buffer = io.BytesIO()
        savable.save(buffer, "PNG", compress_level=1, exif=image.getexif())
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageUnusable(f"PIL cannot read this image: {error}", "IMAGE_CORRUPT") from None
    return buffer.getvalue()
