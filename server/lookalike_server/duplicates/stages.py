"""The stages of a search as pure functions: tables in, one shard of a table out.

    snapshot   sequence, id, digest, attributes, reference, vector     the items as they were
    images     row, image, new, reference    exact copies collapsed: the items of each image, best first
    centres    vector                        only among very many: neighbourhoods,
    lists      list0 .. list4                and the nearest five of each image
    links      first, second, similarity     pairs that connect all that is connected; facts: all pairs
    recall     (facts only)                  of an exact sample, how much was found
    groups     group, row, id, score, exact, attributes                what the caller asked for

A row is an item, counted as in the snapshot; an image is a distinct file. Whatever is random comes from the
seed, so a shard is the same however often it is made, on one machine with one version of the libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .candidates import Floats, Plan, Rows, number_distinct, verified_scores
from .clusters import CENTRES_EACH, ListBook, Lists, chosen, nearest, sampled_recall, trained_centres
from .groups import join, roots
from .representative import Policy, best_first
from .shards import Shard

ROWS = 32_768  # of a shard of the snapshot: 64 MiB of vectors at 512 elements
LISTED = 65_536  # images of a shard of lists
_RECALL_SAMPLE = 512

Flags = npt.NDArray[np.bool_]

Between = Callable[[float, int], None]
"""Called between blocks with the share of the shard that is done and the pairs found in it."""


@dataclass(frozen=True)
class Asked:
    """What a search is for. threshold: least cosine similarity of a pair, -1..1."""

    threshold: float
    policy: Policy = Policy.LARGEST
    attribute: str = ""
    since: int = 0
    """Only groups with an item whose sequence number is greater; pairs of older items are not looked for."""
    against: bool = False
    """Only copies of reference items among the others; a group then has one reference item, the first."""
    seed: int = 0


def snapshot_shard(
    keys: Rows,
    ids: Sequence[str],
    digests: Sequence[bytes],
    attributes_json: Sequence[str],
    reference: Iterable[bool],
    descriptors: Floats,
) -> pa.Table:
    """Some rows of the snapshot. descriptors: float32 [n, d]; the table looks at the same memory."""
    count, dimension = descriptors.shape
    little = np.ascontiguousarray(descriptors, "<f4")
    kind = pa.binary(4 * dimension)
    vectors = pa.FixedSizeBinaryArray.from_buffers(kind, count, [None, pa.py_buffer(little)])
    columns = {
        "sequence": pa.array(keys, pa.int64()),
        "id": pa.array(ids, pa.string()),
        "digest": pa.array(digests, pa.binary()),
        "attributes": pa.array(attributes_json, pa.string()),
        "reference": pa.array(reference, pa.bool_()),
        "vector": vectors,
    }
    return pa.table(columns)


def matrix(table: pa.Table, column: str = "vector") -> Floats:
    """The vectors of a table, float32 [n, d]; a view where they lie together."""
    joined = table.column(column).combine_chunks()
    width = joined.type.byte_width // 4
    if not len(joined):
        return np.empty((0, width), np.float32)
    flat = np.frombuffer(joined.buffers()[1], "<f4")
    rows: Floats = flat[joined.offset * width : (joined.offset + len(joined)) * width].reshape(-1, width)
    return rows


class Images:
    """Exact copies, collapsed: each distinct image stands for all its items, by the best of them."""

    def __init__(self, table: pa.Table, asked: Asked) -> None:
        self._rows: Rows = table.column("row").to_numpy()
        image = table.column("image").to_numpy()
        new, reference = _flags(table, "new"), _flags(table, "reference")
        self.is_new, self.is_reference = np.empty_like(new), np.empty_like(reference)  # [n], by row
        self.is_new[self._rows], self.is_reference[self._rows] = new, reference
        self.count: Rows = np.bincount(image).astype(np.int64)  # [m] items of each image
        self._start: Rows = np.concatenate([[0], np.cumsum(self.count)]).astype(np.int64)
        self.best: Rows = self._rows[self._start[:-1]]  # [m] the best item of each image
        self.reference: Flags = np.bincount(image, reference, minlength=len(self.count)) > 0
        self.fresh: Flags = np.bincount(image, new, minlength=len(self.count)) > 0
        if asked.against:
            self.fresh &= ~self.reference
        rest = self.reference if asked.against else ~self.fresh
        self.order: Rows = np.concatenate([np.flatnonzero(self.fresh), np.flatnonzero(rest)])
        self.plan = Plan(self.best[self.order], int(self.fresh.sum()), among=not asked.against)
        items = np.stack([self.count, *(np.bincount(image, flags) for flags in (~new, reference))])
        self.exact_pairs = int(_exact_pairs(*items.astype(np.int64), against=asked.against).sum())

    def of(self, image: int) -> Rows:
        """The rows of all items of an image, best first."""
        return self._rows[self._start[image] : self._start[image + 1]]


def _exact_pairs(count: Rows, old: Rows, reference: Rows, *, against: bool) -> Rows:
    """How many pairs of items each image holds itself, of those that are looked for: [m]."""
    if against:
        return (count - reference) * reference
    return (count * (count - 1) - old * (old - 1)) // 2


def _flags(table: pa.Table, column: str) -> Flags:
    flags: Flags = table.column(column).to_numpy(zero_copy_only=False).astype(np.bool_)
    return flags


def images(snapshot: pa.Table, asked: Asked) -> Shard:
    """Collapses exact copies: the items of each image together, best first, best images first."""
    ids, attributes = (snapshot.column(name).to_pylist() for name in ("id", "attributes"))
    order = best_first(ids, attributes, asked.policy, asked.attribute)
    reference = _flags(snapshot, "reference") & asked.against
    order = order[np.argsort(~reference[order], kind="stable")]
    number = number_distinct(snapshot.column("digest").take(pa.array(order)).to_pylist())
    together = np.argsort(number, kind="stable")
    rows = order[together]
    new = snapshot.column("sequence").to_numpy()[rows] > asked.since
    columns = {"row": rows, "image": number[together], "new": new, "reference": reference[rows]}
    return Shard(pa.table(columns))


def centres(descriptors: Floats, images: Images, seed: int, between: Between) -> Shard:
    found = trained_centres(descriptors, images.plan.rows, seed, lambda share: between(share, 0))
    kind = pa.binary(4 * found.shape[1])
    vectors = pa.FixedSizeBinaryArray.from_buffers(kind, len(found), [None, pa.py_buffer(found)])
    return Shard(pa.table({"vector": vectors}))


def lists(descriptors: Floats, images: Images, centres: Floats, number: int) -> Shard:
    """The nearest centres of one stretch of the plan's rows."""
    rows = images.plan.rows[number * LISTED : (number + 1) * LISTED]
    found = nearest(descriptors, rows, centres, CENTRES_EACH)
    return Shard(pa.table({f"list{place}": found[:, place] for place in range(found.shape[1])}))


def book(tables: Sequence[pa.Table]) -> ListBook:
    """All lists, from their shards."""
    table = pa.concat_tables(tables)
    listed: Lists = np.stack([column.to_numpy() for column in table.columns], axis=1)
    return ListBook(listed)


def links(
    descriptors: Floats, images: Images, blocks: Iterator[tuple[Rows, Rows, float]], between: Between
) -> Shard:
    """Of the pairs in the blocks, positions in the plan, those that connect two sets of images; counts all.

    Never more links than images, however many pairs there are.
    """
    parent = np.arange(len(images.count))
    found: list[tuple[Rows, Rows]] = []
    pairs = 0
    for first, second, share in blocks:
        first, second = images.order[first], images.order[second]
        pairs += int(images.count[first] @ images.count[second])
        joined = join(parent, first, second)
        found.append((first[joined], second[joined]))
        between(share, pairs)
    first = np.concatenate([images.order[:0], *(first for first, _ in found)])
    second = np.concatenate([images.order[:0], *(second for _, second in found)])
    similarity = verified_scores(descriptors, images.best[first], images.best[second])
    table = {"first": first, "second": second, "similarity": similarity.astype(np.float32)}
    return Shard(pa.table(table), {"pairs": pairs})


def recall(descriptors: Floats, images: Images, parent: Rows, asked: Asked, between: Between) -> Shard:
    """Compares a sample exactly: facts `found` of `pairs`."""
    random = np.random.default_rng(asked.seed)
    sampled = chosen(random, images.plan.fresh, min(_RECALL_SAMPLE, images.plan.fresh))
    sets = roots(parent, images.order)
    found = sampled_recall(descriptors, images.plan, sets, asked.threshold, sampled, lambda: between(0.5, 0))
    return Shard(pa.table({"image": images.order[sampled]}), {"found": found.found, "pairs": found.pairs})
