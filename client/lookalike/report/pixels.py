"""Which copies have the very same pixels although their files differ: saved anew without loss, or stripped
of what a camera wrote beside the picture.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageOps

from lookalike.records import DuplicateGroup, DuplicateMember

_LEAST_SIMILARITY = 0.99  # the same pixels have nearly the same descriptor; a decoder may round differently


def same_pixels(groups: Iterable[DuplicateGroup], paths: Mapping[str, Path]) -> frozenset[str]:
    """The ids of members whose decoded upright pixels are those of their representative, each one of them.

    Reads files only where a member has the representative's width and height, and nearly its descriptor.
    """
    return frozenset(member_id for group in groups for member_id in _same(group.members, paths))


def _same(members: Sequence[DuplicateMember], paths: Mapping[str, Path]) -> Iterable[str]:
    best, *others = members
    size = _size(best)
    likely = [m for m in others if not m.exact and m.score >= _LEAST_SIMILARITY and size and _size(m) == size]
    if not likely:
        return []
    wanted = pixel_digest(paths.get(best.id))
    return [m.id for m in likely if wanted and pixel_digest(paths.get(m.id)) == wanted]


def _size(member: DuplicateMember) -> tuple[object, object] | None:
    width, height = member.attributes.get("width"), member.attributes.get("height")
    return (width, height) if width and height else None


def pixel_digest(path: Path | None) -> bytes | None:
    """SHA-256 of the picture's mode, size and pixels at full size, upright; None when it cannot be read."""
    if path is None:
        return None
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            upright = ImageOps.exif_transpose(image)
            plain = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except Exception:  # decoders raise whatever they trip over, and a report is no place to fail for it
        return None
    head = f"{plain.mode} {plain.width} {plain.height} ".encode()
    return hashlib.sha256(head + plain.tobytes()).digest()
