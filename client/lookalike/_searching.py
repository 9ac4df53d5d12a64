"""Searches of a collection, for the blocking client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Unpack, overload

from numpy.typing import NDArray

from lookalike import _queries
from lookalike._queries import SearchOptions
from lookalike.images import ImageLike
from lookalike.records import Hit, Hits
from lookalike.v1 import search_pb2_grpc

if TYPE_CHECKING:
    from lookalike.client import Client


class SearchCalls:
    """The part of `Collection` that finds items."""

    name: str
    _client: Client
    _search: search_pb2_grpc.SearchServiceStub

    @overload
    def search(
        self,
        query: ImageLike | None = None,
        *,
        vector: Sequence[float] | NDArray[Any] | None = None,
        id: str | None = None,
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Hits: ...

    @overload
    def search(
        self,
        query: list[Any] | tuple[Any, ...] | None = None,
        *,
        vector: Sequence[NDArray[Any]] | None = None,
        id: list[str] | tuple[str, ...] | None = None,
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> list[Hits]: ...

    def search(
        self,
        query: Any = None,
        *,
        vector: Any = None,
        id: Any = None,  # noqa: A002 - the word that the API uses for it
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Any:
        """The nearest items of a picture, a vector or an item of the collection, nearest first.

        Exactly one of `query` (a picture), `vector` ([dimension]) and `id` is given. A list of pictures, of
        vectors or of ids is several queries at once, and returns a list of lists.

        Args:
            k: most hits, 10 unless told otherwise; of groups with `group_by`.
            min_score: only hits at least this similar.
            min_precision: only hits whose score means at least this precision, by the collection's
                calibration; FailedPrecondition (NOT_CALIBRATED) when it has none for it.
            where: only items whose attributes fit, as "price < 100 and category = 'hat'".
            range: all hits of at least `min_score` or `min_precision`, up to `k` or 10,000 of them.
            group_by: an attribute, as "product.id": of items with equal values only the nearest are hits.
            group_size: most hits of each group; 1 unless told otherwise.
            min_sequence: waits until the collection has reached this number, as a report's `sequence`.
            exact: compares with every item, where else an approximate index would be asked.
            explain: sets `explanation` of what is returned.
            views: "pasted" looks for pictures inside the query picture as well, "grid" at nine parts of it.
            normalize: subtracts from scores how alike the query is to the collection's background, so that
                scores of different queries can be compared; see `set_background`.
            rerank: "query_expansion" or "k_reciprocal" orders the hits anew by what their neighbours say.
        """
        limits = self._client.limits()
        queries, several = _queries.queries(query, vector, id, limits)
        found: list[Hits] = []
        for request in _queries.requests(self.name, queries, options, limits):
            answer = self._client._call(self._search.Search, request, timeout)
            found += _queries.hits(answer, queries[len(found) :])
        return found if several else found[0]

    def browse(
        self,
        query: ImageLike | None = None,
        *,
        vector: Sequence[float] | NDArray[Any] | None = None,
        id: str | None = None,  # noqa: A002
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Iterator[Hit]:
        """The hits of one query from the nearest on, up to 10,000, by pages of `k` as they are read."""
        limits = self._client.limits()
        queries, _ = _queries.queries(query, vector, id, limits)
        (request,) = _queries.requests(self.name, queries[:1], options, limits)
        while True:
            answer = self._client._call(self._search.Search, request, timeout)
            yield from _queries.hits(answer, queries)[0]
            request.page_token = answer.results[0].next_page_token
            if not request.page_token:
                return
