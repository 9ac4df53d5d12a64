"""Searches for duplicates from start to groups, for the asynchronous client: the twin of _jobs.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import grpc

from lookalike import _duplicate_messages as messages
from lookalike import _shared
from lookalike._jobs import CANCEL_SECONDS, PAGE, Watcher
from lookalike.errors import LookalikeError, Unavailable
from lookalike.images import ImageLike
from lookalike.records import DuplicateCheck, DuplicateGroup, DuplicateJob
from lookalike.v1 import duplicates_pb2 as pb
from lookalike.v1 import duplicates_pb2_grpc

if TYPE_CHECKING:
    from lookalike.aio import AsyncClient


class AsyncJobs:
    """The searches for duplicates on a server; every method is that of `Jobs`, to be awaited."""

    def __init__(self, client: AsyncClient) -> None:
        channel = client._channel
        if channel is None:
            raise ValueError(f"{client!r} is closed")
        self._client = client
        self._stub = duplicates_pb2_grpc.DuplicateServiceStub(channel)

    async def all(self, collection: str = "", *, timeout: float | None = None) -> list[DuplicateJob]:
        """Like `Jobs.all`."""
        request = pb.ListDuplicateJobsRequest(collection=collection)
        answer = await self._client._call(self._stub.ListDuplicateJobs, request, timeout)
        return [messages.job(job) for job in answer.jobs]

    async def get(self, job_id: str, *, timeout: float | None = None) -> DuplicateJob:
        """Like `Jobs.get`."""
        request = pb.GetDuplicateJobRequest(job_id=job_id)
        return messages.job((await self._client._call(self._stub.GetDuplicateJob, request, timeout)).job)

    async def wait(self, job_id: str, progress: Watcher | None = None) -> DuplicateJob:
        """Like `Jobs.wait`."""
        patience = _shared.Patience()
        seen: list[pb.DuplicateJob] = []
        while True:
            try:
                async with aclosing(self._watched(job_id)) as watched:
                    async for job in watched:
                        if seen != [job]:
                            seen = [job]
                            patience.progressed()
                        if progress is not None:
                            progress(messages.job(job))
                return messages.job(messages.check_success(seen[0] if seen else None))
            except grpc.RpcError as broken:
                error = _shared.error_of(broken, self._client.target)
            pause = patience.pause(error)
            if pause is None:
                raise error
            await asyncio.sleep(pause)

    async def _watched(self, job_id: str) -> AsyncGenerator[pb.DuplicateJob, None]:
        call: Any = self._stub.WatchDuplicateJob(pb.WatchDuplicateJobRequest(job_id=job_id))
        try:
            async for answer in call:
                yield answer.job
        finally:
            call.cancel()

    async def groups(self, job_id: str, *, timeout: float | None = None) -> AsyncIterator[DuplicateGroup]:
        """Like `Jobs.groups`."""
        request = pb.ListDuplicateGroupsRequest(job_id=job_id, page_size=PAGE)
        while True:
            answer = await self._client._call(self._stub.ListDuplicateGroups, request, timeout)
            for group in answer.groups:
                yield messages.group(group)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def finish(self, job_id: str, progress: Watcher | None = None) -> list[DuplicateGroup]:
        """Like `Jobs.finish`."""
        try:
            await self.wait(job_id, progress)
            return [group async for group in self.groups(job_id)]
        except Unavailable:
            raise  # it goes on when the server is back
        except BaseException:
            with suppress(LookalikeError):  # the caller should see the reason for leaving
                await self.cancel(job_id, timeout=CANCEL_SECONDS)
            raise

    async def cancel(self, job_id: str, *, timeout: float | None = None) -> DuplicateJob:
        """Like `Jobs.cancel`."""
        request = pb.CancelDuplicateJobRequest(job_id=job_id)
        return messages.job((await self._client._call(self._stub.CancelDuplicateJob, request, timeout)).job)

    async def delete(self, job_id: str, *, timeout: float | None = None) -> None:
        """Like `Jobs.delete`."""
        await self._client._call(
            self._stub.DeleteDuplicateJob, pb.DeleteDuplicateJobRequest(job_id=job_id), timeout
        )


class AsyncDuplicateCalls:
    """What a collection can be asked about duplicates."""

    name: str
    _client: AsyncClient
    _duplicates: duplicates_pb2_grpc.DuplicateServiceStub

    async def find_duplicates(
        self,
        threshold: float | None = None,
        *,
        precision: float | None = None,
        policy: str = "largest",
        where: str = "",
        since_sequence: int = 0,
        reference: str = "",
        progress: Watcher | None = None,
    ) -> list[DuplicateGroup]:
        """Like `Collection.find_duplicates`; cancelling the task cancels the job on the server."""
        job = await self.start_duplicate_job(
            threshold,
            precision=precision,
            policy=policy,
            where=where,
            since_sequence=since_sequence,
            reference=reference,
        )
        return await self._client.jobs.finish(job.id, progress)

    async def start_duplicate_job(
        self,
        threshold: float | None = None,
        *,
        precision: float | None = None,
        policy: str = "largest",
        where: str = "",
        since_sequence: int = 0,
        reference: str = "",
        timeout: float | None = None,
    ) -> DuplicateJob:
        """Like `Collection.start_duplicate_job`."""
        request = messages.start_request(
            self.name, threshold, precision, policy, where, since_sequence, reference
        )
        return messages.job(
            (await self._client._call(self._duplicates.StartDuplicateJob, request, timeout)).job
        )

    async def check_duplicate(
        self,
        image: ImageLike | None = None,
        *,
        vector: object | None = None,
        threshold: float | None = None,
        where: str = "",
        timeout: float | None = None,
    ) -> DuplicateCheck:
        """Like `Collection.check_duplicate`; the picture is read in a thread."""
        item = await asyncio.to_thread(
            messages.new_item, image, vector, "-", None, await self._client.limits()
        )
        request = pb.CheckDuplicateRequest(collection=self.name, item=item, threshold=threshold, where=where)
        return messages.outcome(await self._client._call(self._duplicates.CheckDuplicate, request, timeout))

    async def add_unless_duplicate(
        self,
        image: ImageLike | None = None,
        *,
        id: str,  # noqa: A002 - the word that the API uses for it
        attributes: Mapping[str, Any] | None = None,
        vector: object | None = None,
        threshold: float | None = None,
        timeout: float | None = None,
    ) -> DuplicateCheck:
        """Like `Collection.add_unless_duplicate`; the picture is read in a thread."""
        item = await asyncio.to_thread(
            messages.new_item, image, vector, id, attributes, await self._client.limits()
        )
        request = pb.AddUnlessDuplicateRequest(collection=self.name, item=item, threshold=threshold)
        answer = await self._client._call(self._duplicates.AddUnlessDuplicate, request, timeout)
        return messages.outcome(answer, added=answer.added)
