"""DuplicateService: near-duplicate jobs over a collection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from lookalike.v1 import duplicates_pb2 as pb
from lookalike.v1 import duplicates_pb2_grpc

from lookalike_server.duplicates import Policy, find_duplicates
from lookalike_server.duplicates.jobs import Job, JobBoard, State
from lookalike_server.errors import ArgumentInvalid, MessageTooLarge, PageTokenInvalid, RecipeUnknown
from lookalike_server.filters import parse_filter

if TYPE_CHECKING:
    from lookalike_server.catalog import Catalog
    from lookalike_server.collection import Collection
    from lookalike_server.engine import Engine

_WATCH_INTERVAL = 0.25  # seconds between two messages to a watcher
_PAGE_SIZE = 100
_MOST_PAGE_SIZE = 1000
_MOST_PAGE_BYTES = 2 * 1024 * 1024  # gRPC clients refuse messages of more than 4 MiB unless told otherwise

_POLICIES = {
    pb.REPRESENTATIVE_POLICY_UNSPECIFIED: Policy.LARGEST,
    pb.REPRESENTATIVE_POLICY_LARGEST: Policy.LARGEST,
    pb.REPRESENTATIVE_POLICY_OLDEST: Policy.OLDEST,
    pb.REPRESENTATIVE_POLICY_MOST_CONNECTED: Policy.MOST_CONNECTED,
}
_POLICIES_ON_WIRE = {policy: number for number, policy in _POLICIES.items()}
_STATES = {state: pb.JobState.Value(f"JOB_STATE_{state.name}") for state in State}


@dataclass(frozen=True)
class _Task:
    collection: str
    threshold: float
    policy: Policy
    where: str


_Groups: TypeAlias = list[pb.DuplicateGroup]
_Job: TypeAlias = Job[_Task, _Groups]


class DuplicateServicer(duplicates_pb2_grpc.DuplicateServiceServicer):
    """Starts, watches, cancels and reads jobs. `close` cancels them all and waits for the one at work."""

    def __init__(self, catalog: Catalog, engine: Engine) -> None:
        self._catalog = catalog
        self._engine = engine
        self._board: JobBoard[_Task, _Groups] = JobBoard(self._find)

    def close(self) -> None:
        """Blocks for a moment; call it before the catalog is closed."""
        self._board.close()

    async def StartDuplicateJob(  # noqa: N802
        self, request: pb.StartDuplicateJobRequest, context: Any
    ) -> pb.StartDuplicateJobResponse:
        task = await asyncio.to_thread(self._task, request)
        return pb.StartDuplicateJobResponse(job=_job_to_wire(self._board.start(task)))

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
                yield pb.WatchDuplicateJobResponse(job=_job_to_wire(job))
            if over:
                return
            await asyncio.wait({ended}, timeout=_WATCH_INTERVAL)

    async def CancelDuplicateJob(  # noqa: N802
        self, request: pb.CancelDuplicateJobRequest, context: Any
    ) -> pb.CancelDuplicateJobResponse:
        job = self._board.get(request.job_id)
        self._board.cancel(job)
        return pb.CancelDuplicateJobResponse(job=_job_to_wire(job))

    async def ListDuplicateGroups(  # noqa: N802
        self, request: pb.ListDuplicateGroupsRequest, context: Any
    ) -> pb.ListDuplicateGroupsResponse:
        groups = self._board.get(request.job_id).result()
        return _page(groups, request.page_size, request.page_token)

    def _task(self, request: pb.StartDuplicateJobRequest) -> _Task:
        collection = self._catalog.get(request.collection)
        if request.policy not in _POLICIES:
            raise ArgumentInvalid(
                f"policy {request.policy} is none of RepresentativePolicy; use 0 for the default.",
                field="policy",
            )
        threshold = (
            request.threshold if request.HasField("threshold") else self._default_threshold(collection)
        )
        if not -1 <= threshold <= 1:  # NaN too
            raise ArgumentInvalid(
                f"threshold is {threshold}; it must be a cosine similarity, -1..1.", field="threshold"
            )
        parse_filter(request.where)  # refused now rather than when the job's turn comes
        return _Task(request.collection, threshold, _POLICIES[request.policy], request.where)

    def _default_threshold(self, collection: Collection) -> float:
        recipe = self._engine.recipes.get(collection.space.recipe)
        if recipe is None:
            raise RecipeUnknown(
                f"Collection {collection.name!r} was made with recipe {collection.space.recipe!r}, which this"
                " server does not serve, so there is no default threshold; give one.",
                recipe=collection.space.recipe,
            )
        return recipe.duplicate_threshold

    def _find(self, job: _Job) -> _Groups:
        """The work of a job, in the board's thread."""
        snapshot = self._catalog.get(job.task.collection).snapshot(job.task.where)
        job.report(items_total=len(snapshot.ids), sequence=snapshot.sequence)
        found = find_duplicates(
            snapshot.ids,
            snapshot.descriptors,
            snapshot.digests,
            snapshot.attributes_json,
            threshold=job.task.threshold,
            policy=job.task.policy,
            progress=lambda items, pairs: job.report(items_done=items, pairs_found=pairs),
        )
        job.report(items_done=len(snapshot.ids), pairs_found=found.pairs)
        if found.recall is not None:
            job.report(sampled_pairs=found.recall.pairs, sampled_pairs_found=found.recall.found)
        return [
            pb.DuplicateGroup(
                representative_id=snapshot.ids[group.members[0].row],
                members=[
                    pb.DuplicateMember(
                        item_id=snapshot.ids[member.row],
                        score=member.score,
                        exact=member.exact,
                        attributes_json=snapshot.attributes_json[member.row],
                    )
                    for member in group.members
                ],
            )
            for group in found.groups
        ]


def _job_to_wire(job: _Job) -> pb.DuplicateJob:
    status = job.status
    return pb.DuplicateJob(
        id=job.id,
        collection=job.task.collection,
        threshold=job.task.threshold,
        policy=_POLICIES_ON_WIRE[job.task.policy],
        state=_STATES[status.state],
        items_done=status.items_done,
        items_total=status.items_total,
        pairs_found=status.pairs_found,
        group_count=len(job.result()) if status.state is State.SUCCEEDED else 0,
        sequence=status.sequence,
        sampled_pairs=status.sampled_pairs,
        sampled_pairs_found=status.sampled_pairs_found,
        error=status.error,
    )


def _page(groups: _Groups, page_size: int, page_token: str) -> pb.ListDuplicateGroupsResponse:
    """One page: no more groups than asked for, and no more bytes than any client takes (but one group at
    least).
    """
    if page_size > _MOST_PAGE_SIZE:
        raise MessageTooLarge(
            f"page_size is {page_size}; one page holds at most {_MOST_PAGE_SIZE} groups.", field="page_size"
        )
    start = _start(page_token, len(groups))
    page: _Groups = []
    size = 0
    for group in groups[start : start + (page_size or _PAGE_SIZE)]:
        size += group.ByteSize()
        if page and size > _MOST_PAGE_BYTES:
            break
        page.append(group)
    after = start + len(page)
    return pb.ListDuplicateGroupsResponse(
        groups=page, next_page_token=str(after) if after < len(groups) else ""
    )


def _start(page_token: str, count: int) -> int:
    if not page_token:
        return 0
    if page_token.isascii() and page_token.isdecimal() and len(page_token) < 19 and int(page_token) < count:
        return int(page_token)
    raise PageTokenInvalid(
        f"page_token {page_token!r} was not given by this call; use next_page_token of the page before.",
        field="page_token",
    )
