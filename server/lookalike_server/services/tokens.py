"""Page tokens: a place in an answer, bound to the request that it was made for."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib

from lookalike_server.errors import PageTokenInvalid

_HEAD = struct.Struct("<I")


def make_token(place: bytes, request: bytes) -> str:
    """Returns a token for the place; `request` is all that must be the same when it comes back."""
    return base64.urlsafe_b64encode(_HEAD.pack(zlib.crc32(place, zlib.crc32(request))) + place).decode()


def read_token(token: str, request: bytes) -> bytes:
    """Returns the place. Raises PageTokenInvalid for what `make_token` did not make for this request."""
    try:
        data = base64.b64decode(token, b"-_", validate=True)
        (checksum,) = _HEAD.unpack_from(data)
    except (ValueError, binascii.Error, struct.error):
        raise PageTokenInvalid(
            "page_token is not one that this server gave; begin without it.", field="page_token"
        ) from None
    if checksum != zlib.crc32(data[_HEAD.size :], zlib.crc32(request)):
        raise PageTokenInvalid("page_token belongs to another request; begin without it.", field="page_token")
    return data[_HEAD.size :]
