"""Results that are known already, and images that are computed at this moment: neither is computed again.

Results are kept by the digest of what was sent and the model, which stands for its embedding spaces; nothing
else of an image is looked at. The one that was used longest ago goes first when there is no room.

An image identical to one on the road follows it and gets its result. A follower is never worse off for it:
when its leader's caller leaves, the leader goes on for the followers; when the leader ends without a result
that holds for all of them, the followers take to the road themselves. Interactive images follow interactive
ones only, so that nobody waits behind bulk.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lookalike_server.jobs import Job, Key

_Found = dict[str, NDArray[np.float32]]

_OVERHEAD = 512  # bytes of an entry besides its numbers


@dataclass(frozen=True)
class CacheStatistics:
    entries: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    shared: int = 0
    evicted: int = 0


class ResultCache:
    """Any thread may use it.

    Args:
        most_bytes: of results; 0 means that every image is computed, identical ones too.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = self._hits = self._misses = self._shared = self._evicted = 0
        self._known: OrderedDict[tuple[bytes, tuple[int, ...], int], _Found] = OrderedDict()
        self._leaders: dict[Key, Job] = {}
        self._lock = threading.Lock()

    def meet(self, job: Job) -> str:
        """Decides how a job with a digest gets its result.

        Returns "cached" when it has it now, "shared" when it will come with its leader's, "computed" when it
        has to be computed, and others may follow it.
        """
        if not self._most_bytes or job.call.probe:
            return "computed"
        shape = () if isinstance(job.source, bytes) else job.source.shape
        key = (job.digest, shape, job.model.number, job.call.bulk)
        with self._lock:
            known = self._known.get(key[:3])
            if known is not None:
                self._known.move_to_end(key[:3])
                self._hits += 1
                job.outcome.descriptors, job.outcome.origin = dict(known), "cached"
                return "cached"
            if key in self._leaders and not job.alone:
                self._shared += 1
                job.outcome.origin = "shared"
                self._leaders[key].followers.append(job)
                return "shared"
            self._misses += 1
            if key not in self._leaders:
                self._leaders[key], job.key = job, key
            return "computed"

    def settle(self, job: Job) -> list[Job]:
        """Takes note that a job has ended, keeps its descriptors if it has any, and returns its followers."""
        if job.key is None:
            return []
        with self._lock:
            del self._leaders[job.key]
            if job.outcome.error is None and job.outcome.descriptors:
                self._keep(job, job.key[:3])
        job.key = None
        return job.followers

    def statistics(self) -> CacheStatistics:
        with self._lock:
            return CacheStatistics(
                len(self._known), self._bytes, self._hits, self._misses, self._shared, self._evicted
            )

    def _keep(self, job: Job, key: tuple[bytes, tuple[int, ...], int]) -> None:
        # Copies, because a row that is only a view keeps the rows of its whole batch.
        kept = {recipe: row.copy() for recipe, row in job.outcome.descriptors.items()}
        for row in kept.values():
            row.flags.writeable = False
        self._known[key] = kept
        self._bytes += _size(kept)
        while self._bytes > self._most_bytes:
            _, oldest = self._known.popitem(last=False)
            self._bytes -= _size(oldest)
            self._evicted += 1


def _size(found: _Found) -> int:
    return _OVERHEAD + sum(row.nbytes for row in found.values())
