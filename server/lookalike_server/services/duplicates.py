"""DuplicateService: near-duplicate jobs over a collection, and the question whether one picture is a copy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from lookalike.v1 import duplicates_pb2 as pb
from lookalike.v1 import duplicates_pb2_grpc, items_pb2
from lookalike_extractor.errors import LookalikeError

from lookalike_server.calibrations import least_score
from lookalike_server.duplicates import Asked, Policy, Search
from lookalike_server.duplicates.check import Matches, add_unless, copies_of
from lookalike_server.duplicates.job import Job, Task
from lookalike_server.duplicates.jobs import JobBoard
from lookalike_server.errors import ArgumentInvalid, Draining, RecipeUnknown
from lookalike_server.filters import parse_filter
from lookalike_server.rows import Descriptor, NewRow
from lookalike_server.services.duplicate_messages import POLICIES, job_to_wire, match_to_wire, page_of_groups
from lookalike_server.services.spaces import check_space, descriptor_from_wire, embedded, in_thread, named
from lookalike_server.wire import image_from_wire

if TYPE_CHECKING:
    from lookalike_server.catalog import Catalog
    from lookalike_server.collection import Collection
    from lookalike_server.engine import Engine

_WATCH_INTERVAL = 0.25  # seconds between two messages to a watcher


class DuplicateServicer(duplicates_pb2_grpc.DuplicateServiceServicer):
    """Starts, watches, cancels, reads and deletes jobs. `close` leaves them for the next process."""

    def __init__(self, catalog: Catalog, engine: Engine) -> None:
        self._catalog = catalog
        self._engine = engine
        self._board = JobBoard(catalog.root, self._find)

    def close(self) -> None:
        """Blocks for a moment; call it before the catalog is closed."""
        self._board.close()

    async def StartDuplicateJob(  # noqa: N802
        self, request: pb.StartDuplicateJobRequest, context: Any
    ) -> pb.StartDuplicateJobResponse:
        job = await asyncio.to_thread(lambda: self._board.start(self._task(request)))
        return pb.StartDuplicateJobResponse(job=job_to_wire(job))

    async def WatchDuplicateJob(  # noqa: N802
        self, request: pb.WatchDuplicateJobRequest, context: Any
    ) -> AsyncIterator[pb.WatchDuplicateJobResponse]:
        job = self._board.get(request.job_id)
        ended = asyncio.wrap_future(job.ended)
        seen = None
        while True:
            over = ended.done()  # asked first: what is sent after it is the last word
            if job.status is not seen:
                seen = job.status
                yield pb.WatchDuplicateJobResponse(job=job_to_wire(job))
            if over and not ended.result():
                raise Draining(f"The server is stopping; job {job.id} goes on when it is back.")
            if over:
                return
            await asyncio.wait({ended}, timeout=_WATCH_INTERVAL)

    async def GetDuplicateJob(  # noqa: N802
        self, request: pb.GetDuplicateJobRequest, context: Any
    ) -> pb.GetDuplicateJobResponse:
        return pb.GetDuplicateJobResponse(job=job_to_wire(self._board.get(request.job_id)))

    async def ListDuplicateJobs(  # noqa: N802
        self, request: pb.ListDuplicateJobsRequest, context: Any
    ) -> pb.ListDuplicateJobsResponse:
        jobs = self._board.list()
        name = self._catalog.aliases.behind(request.collection) or request.collection
        wanted = [job for job in jobs if name in ("", job.task.collection)]
        return pb.ListDuplicateJobsResponse(jobs=map(job_to_wire, wanted))

    async def DeleteDuplicateJob(  # noqa: N802
        self, request: pb.DeleteDuplicateJobRequest, context: Any
    ) -> pb.DeleteDuplicateJobResponse:
        await asyncio.to_thread(self._board.delete, self._board.get(request.job_id))
        return pb.DeleteDuplicateJobResponse()

    async def CancelDuplicateJob(  # noqa: N802
        self, request: pb.CancelDuplicateJobRequest, context: Any
    ) -> pb.CancelDuplicateJobResponse:
        job = self._board.get(request.job_id)
        await asyncio.to_thread(self._board.cancel, job)
        return pb.CancelDuplicateJobResponse(job=job_to_wire(job))

    async def ListDuplicateGroups(  # noqa: N802
        self, request: pb.ListDuplicateGroupsRequest, context: Any
    ) -> pb.ListDuplicateGroupsResponse:
        job = self._board.get(request.job_id)
        return await asyncio.to_thread(page_of_groups, job, request.page_size, request.page_token)

    async def CheckDuplicate(  # noqa: N802
        self, request: pb.CheckDuplicateRequest, context: Any
    ) -> pb.CheckDuplicateResponse:
        collection = self._catalog.get(request.collection)
        threshold = self._threshold(collection, request)
        descriptor, digest = await self._described(collection, request.item)
        found = await in_thread(
            self._catalog.workers, copies_of, collection, descriptor, digest, threshold, request.where
        )
        return pb.CheckDuplicateResponse(
            matches=map(match_to_wire, found.matches), threshold=threshold, sequence=found.sequence
        )

    async def AddUnlessDuplicate(  # noqa: N802
        self, request: pb.AddUnlessDuplicateRequest, context: Any
    ) -> pb.AddUnlessDuplicateResponse:
        collection = self._catalog.get(request.collection)
        threshold = self._threshold(collection, request)
        item = request.item
        descriptor, digest = await self._described(collection, item)
        try:
            row = NewRow(item.id, descriptor, item.attributes_json, digest)
        except LookalikeError as error:
            raise named(error, "item") from None
        found, sequence = await self._added(collection, row, threshold)
        return pb.AddUnlessDuplicateResponse(
            added=not found.matches,
            matches=map(match_to_wire, found.matches),
            threshold=threshold,
            sequence=sequence,
        )

    async def _added(self, collection: Collection, row: NewRow, threshold: float) -> tuple[Matches, int]:
        """Writes the row unless there are copies of it: those, and the sequence number."""
        while True:
            found = await in_thread(
                self._catalog.workers, copies_of, collection, row.descriptor, row.digest, threshold
            )
            if found.matches:
                return found, found.sequence
            written = await asyncio.wrap_future(add_unless(collection, row, found.sequence, threshold))
            if written.inserted or written.replaced:
                return found, written.sequence
            # A copy came in between; now it is found, unless it has been deleted again.

    async def _described(self, collection: Collection, item: items_pb2.NewItem) -> tuple[Descriptor, bytes]:
        """The descriptor of the picture, and the digest of its file where there is one."""
        content = item.WhichOneof("content")
        if content == "descriptor":
            check_space(collection, item.space_id, "item.space_id")
            return descriptor_from_wire(item.descriptor, collection, "item.descriptor"), b""
        if content is None:
            raise ArgumentInvalid(
                "item has neither an image nor a descriptor; set one of them.", field="item.content"
            )
        image = image_from_wire(item.image, "item.image")
        (result,) = await embedded(self._engine, collection, [image], wait=False)
        if isinstance(result, LookalikeError):
            raise named(result, "item", "image")
        return result[0], result[1].digest

    def _task(self, request: pb.StartDuplicateJobRequest) -> Task:
        collection = self._catalog.get(request.collection)
        policy = _policy(request)
        parse_filter(request.where)  # refused now rather than when the job's turn comes
        parse_filter(request.reference)
        asked = Asked(
            self._asked_threshold(collection, request),
            policy,
            request.policy_attribute,
            since=request.since_sequence,
            against=bool(request.reference),
        )
        return Task(collection.name, asked, request.where, request.reference, request.precision)

    def _asked_threshold(self, collection: Collection, request: pb.StartDuplicateJobRequest) -> float:
        if not request.HasField("precision"):
            return self._threshold(collection, request)
        if request.HasField("threshold"):
            raise ArgumentInvalid("Give a threshold or a precision, not both.", field="precision")
        return least_score(collection, request.precision, "precision")

    def _threshold(self, collection: Collection, request: Any) -> float:
        """The request's threshold, or that of the collection's recipe."""
        if not request.HasField("threshold"):
            return self._default_threshold(collection)
        threshold: float = request.threshold
        if not -1 <= threshold <= 1:  # NaN too
            raise ArgumentInvalid(
                f"threshold is {threshold}; it must be a cosine similarity, -1..1.", field="threshold"
            )
        return threshold

    def _default_threshold(self, collection: Collection) -> float:
        recipe = self._engine.recipes.get(collection.space.recipe)
        if recipe is None:
            raise RecipeUnknown(
                f"Collection {collection.name!r} was made with recipe {collection.space.recipe!r}, which this"
                " server does not serve, so there is no default threshold; give one.",
                recipe=collection.space.recipe,
            )
        return recipe.duplicate_threshold

    def _find(self, job: Job) -> None:
        """The work of a job, in the board's thread."""
        task = job.task
        collection = self._catalog.get(task.collection)
        search = Search(job.shards, task.asked, job.report)
        job.report(search.run(lambda: collection.snapshot(task.where, reference=task.reference)))


def _policy(request: pb.StartDuplicateJobRequest) -> Policy:
    if request.policy not in POLICIES:
        raise ArgumentInvalid(
            f"policy {request.policy} is none of RepresentativePolicy; use 0 for the default.", field="policy"
        )
    policy = POLICIES[request.policy]
    if (policy in (Policy.MAX, Policy.MIN)) != bool(request.policy_attribute):
        raise ArgumentInvalid(
            "policy_attribute names the attribute of the policies by attribute, and is empty with others.",
            field="policy_attribute",
        )
    return policy
