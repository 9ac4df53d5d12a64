"""What goes into a collection and comes out of it: frozen values, checked where they are made."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike_server.errors import ArgumentInvalid, AttributesInvalid, DescriptorInvalid

MOST_ID_BYTES = 1024
MOST_ATTRIBUTE_BYTES = 65_536
# SQLite reads no JSON of more than 1,000 levels, and where Python stops depends on its version.
MOST_ATTRIBUTE_DEPTH = 100

Descriptor = NDArray[np.float32]

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class NewRow:
    """An item to write. What it holds is valid: the id, a descriptor of length 1, attributes as compact JSON.

    Args:
        id: 1 to 1024 bytes of UTF-8 without NUL.
        descriptor: float32 [d], finite, not all zeros; it is scaled to length 1.
        attributes_json: a JSON object of at most 65,536 bytes; "" means {}.
        digest: SHA-256 of the image's bytes, or b"".

    Raises ArgumentInvalid, DescriptorInvalid or AttributesInvalid, with the field in the metadata.
    """

    id: str
    descriptor: Descriptor
    attributes_json: str = ""
    digest: bytes = b""

    def __post_init__(self) -> None:
        check_id(self.id)
        object.__setattr__(self, "descriptor", unit(self.descriptor))
        object.__setattr__(self, "attributes_json", compact_attributes(self.attributes_json))


@dataclass(frozen=True, slots=True)
class Row:
    """An item as it is stored. `k` is its sequence number; `descriptor` is None where nobody asked for it."""

    k: int
    id: str
    attributes_json: str
    digest: bytes
    descriptor: Descriptor | None = None


@dataclass(frozen=True)
class Written:
    """What a write did. `sequence` is the number of its last change."""

    sequence: int
    inserted: int = 0
    replaced: int = 0
    deleted: int = 0


def check_id(item_id: str) -> None:
    """Raises ArgumentInvalid unless `item_id` can be the id of an item."""
    try:
        size = len(item_id.encode())
    except UnicodeEncodeError:
        raise ArgumentInvalid("The id is not valid UTF-8.", field="id") from None
    if not item_id:
        raise ArgumentInvalid("The id is empty; give each item one.", field="id")
    if size > MOST_ID_BYTES:
        raise ArgumentInvalid(f"The id has {size} bytes; at most {MOST_ID_BYTES} are allowed.", field="id")
    if "\0" in item_id:
        raise ArgumentInvalid("The id holds a NUL character.", field="id")


def check_different(rows: Sequence[NewRow]) -> None:
    """Raises ArgumentInvalid when an id comes twice."""
    seen: set[str] = set()
    for i, row in enumerate(rows):
        if row.id in seen:
            raise ArgumentInvalid(
                f"items[{i}].id: {row.id!r} comes twice; one call writes each id once.",
                field=f"items[{i}].id",
            )
        seen.add(row.id)


def unit(descriptor: NDArray[Any]) -> Descriptor:
    """Returns the descriptor [d] scaled to length 1, as float32. Raises DescriptorInvalid."""
    one = np.asarray(descriptor)
    if one.ndim != 1:
        raise DescriptorInvalid(
            f"The descriptor has shape {list(one.shape)}; it must be [dimension].", field="descriptor"
        )
    scaled: Descriptor = units(one[None])[0]
    return scaled


def units(descriptors: NDArray[Any]) -> NDArray[np.float32]:
    """Returns the descriptors [n, d] scaled to length 1, as float32. Raises DescriptorInvalid."""
    wide = descriptors.astype(np.float64)
    lengths = np.sqrt(np.vecdot(wide, wide))
    for length in lengths.tolist():
        if not math.isfinite(length):
            raise DescriptorInvalid("The descriptor holds NaN or infinity.", field="descriptor")
        if length == 0:
            raise DescriptorInvalid("The descriptor is all zeros and has no direction.", field="descriptor")
    wide /= lengths[:, None]
    return wide.astype(np.float32)


def compact_attributes(text: str) -> str:
    """Returns the JSON object as SQLite searches it: compact, no escaped keys. Raises AttributesInvalid."""
    if not text:
        return "{}"
    size = len(text.encode("utf-8", "replace"))
    if size > MOST_ATTRIBUTE_BYTES:
        raise _bad(f"have {size} bytes; at most {MOST_ATTRIBUTE_BYTES} are allowed")
    try:
        value = _DECODER.decode(text)
        if _depth(value) > MOST_ATTRIBUTE_DEPTH:
            raise RecursionError
        compact = _ENCODER.encode(value)
        compact.encode()
    except UnicodeEncodeError:
        raise _bad("hold half of a surrogate pair") from None
    except RecursionError:
        raise _bad(f"are nested too deeply; at most {MOST_ATTRIBUTE_DEPTH} levels are allowed") from None
    except ValueError as error:
        raise _bad(f"are not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise _bad(f"must be a JSON object, not {type(value).__name__}")
    if _NUL.search(compact):
        raise _bad("hold a NUL character")
    return compact


def _depth(value: object) -> int:
    """How many levels of objects and lists stand around the innermost value."""
    depth, level = 0, [value]
    while level := [child for node in level for child in _children(node)]:
        depth += 1
    return depth


def _children(node: object) -> Iterable[object]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _bad(fault: str) -> AttributesInvalid:
    return AttributesInvalid(f"The attributes {fault}.", field="attributes_json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return value


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python reads so many only
        raise ValueError(f"a number has {len(digits)} digits") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole, parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
