"""Small pictures of photos, made in threads, in order, a few at a time."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from PIL import Image, ImageOps

_AHEAD = 64  # photos on their way at once: bounds the memory, keeps every thread busy
_QUALITY = 76


def thumbnails(paths: Iterable[Path | None], side: int) -> Iterator[bytes | None]:
    """JPEG files of at most `side` pixels either way, upright, one for each path in order.

    None for a path that is None, and for a file that has vanished or cannot be read.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="thumbnails") as threads:
        waiting = iter(paths)
        line: deque[Future[bytes | None]] = deque()
        while True:
            line.extend(threads.submit(thumbnail, path, side) for path in islice(waiting, _AHEAD - len(line)))
            if not line:
                return
            yield line.popleft().result()


def thumbnail(path: Path | None, side: int) -> bytes | None:
    if path is None:
        return None
    try:
        with Image.open(path) as image:
            return _encode(_shrink(image, side))
    except Exception:  # decoders raise whatever they trip over, and a report is no place to fail for it
        return None


def _shrink(image: Image.Image, side: int) -> Image.Image:
    if image.mode == "P":  # a palette cannot be averaged
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode.startswith("I"):  # 16 bits a pixel
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    # For JPEG this decodes at an eighth, a quarter or half of the size, which is most of the speed.
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return ImageOps.exif_transpose(image)


def _encode(image: Image.Image) -> bytes:
    if image.mode in {"RGBA", "LA", "PA"}:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
