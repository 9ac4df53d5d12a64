"""What fuzz.py sends: photos of every format with their bytes changed, and messages of any values."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from google.protobuf.message_factory import GetMessageClass
from photos import encode, photo

TEXTS = (
    "",
    "fuzz",
    "fuzz",
    "near_duplicate",
    "tiny",
    "\u0000",
    "x" * 2000,
    "a = 1 and (",
    "é\u202e",
    "../x",
    "{",
    "[1e999]",
)


@cache
def seeds() -> list[bytes]:
    """A small photo in every format, and in the rarer kinds of some."""
    small = photo("coffee").resize((96, 64))
    plain = [encode(small, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
    rare = [
        encode(small, "JPEG", progressive=True),
        encode(small.convert("CMYK"), "JPEG"),
        encode(small.convert("P"), "PNG"),
        encode(small.convert("L").convert("I;16"), "PNG"),
        encode(small, "GIF", save_all=True, append_images=[small.rotate(90)]),
        encode(small, "WEBP", lossless=True),
        encode(small, "TIFF", compression="tiff_lzw"),
    ]
    return plain + rare


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The data with a few of its bytes changed, cut, repeated or moved."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        at, length = rng.randrange(len(changed)), rng.choice((1, 1, 2, 4, 64))
        match rng.randrange(6):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                changed[at : at + length] = rng.choice((b"\x00", b"\xff", b"\x7f")) * length
            case 2:
                del changed[at : at + length * rng.choice((1, 64))]
            case 3:
                changed[at:at] = changed[at : at + length]
            case 4:
                to = rng.randrange(len(changed))
                changed[to : to + length] = changed[at : at + length]
            case _:
                del changed[at:]
    return bytes(changed)


def filled(kind: Any, rng: random.Random, depth: int = 0) -> Any:
    """A message with some fields of the right type and any value."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.5 or depth > 3:
            continue
        if field.message_type is not None:
            part = filled(GetMessageClass(field.message_type), rng, depth + 1)
            target = getattr(message, field.name)
            target.append(part) if field.is_repeated else target.CopyFrom(part)
        elif field.is_repeated:
            getattr(message, field.name).append(_value(field, rng))
        else:
            setattr(message, field.name, _value(field, rng))
    return message


def _value(field: Any, rng: random.Random) -> Any:
    if field.type == field.TYPE_BYTES:
        return rng.choice((b"", b"\x00" * 32, mutated(rng.choice(seeds()), rng)))
    if field.cpp_type == field.CPPTYPE_STRING:
        return rng.choice(TEXTS)
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice((0.0, -1.0, 0.9, 1e300 if field.type == field.TYPE_DOUBLE else 1e30, float("nan")))
    if field.cpp_type == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_ENUM)
    return rng.choice((0, 1, 2, 7, 1000, 2**31 - 1, -1 if signed else 3))
