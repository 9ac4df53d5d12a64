"""Searches for duplicates from start to groups, for the blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import grpc

from lookalike import _duplicate_messages as messages
from lookalike import _shared
from lookalike.errors import LookalikeError, Unavailable
from lookalike.images import ImageLike
from lookalike.records import DuplicateCheck, DuplicateGroup, DuplicateJob
from lookalike.v1 import duplicates_pb2 as pb
from lookalike.v1 import duplicates_pb2_grpc

if TYPE_CHECKING:
    from lookalike.client import Client

PAGE = 1000
CANCEL_SECONDS = 2.0

Watcher = Callable[[DuplicateJob], None]


class Jobs:
    """The searches for duplicates on a server, as `client.jobs`. They outlive calls and the server's process;
    `Collection.find_duplicates` starts one and waits for it.
    """

    def __init__(self, client: Client) -> None:
        channel = client._channel
        if channel is None:
            raise ValueError(f"{client!r} is closed")
        self._client = client
        self._stub = duplicates_pb2_grpc.DuplicateServiceStub(channel)

    def all(self, collection: str = "", *, timeout: float | None = None) -> list[DuplicateJob]:
        """All jobs, or those of one collection, in the order in which they were started."""
        request = pb.ListDuplicateJobsRequest(collection=collection)
        answer = self._client._call(self._stub.ListDuplicateJobs, request, timeout)
        return [messages.job(job) for job in answer.jobs]

    def get(self, job_id: str, *, timeout: float | None = None) -> DuplicateJob:
        """A job as it is now. Raises NotFound when there is none of that id."""
        request = pb.GetDuplicateJobRequest(job_id=job_id)
        return messages.job(self._client._call(self._stub.GetDuplicateJob, request, timeout).job)

    def wait(self, job_id: str, progress: Watcher | None = None) -> DuplicateJob:
        """Waits until a job has succeeded; raises what kept it from it. A server that is started again
        meanwhile is waited for.

        progress: called with the job a few times a second.
        """
        patience = _shared.Patience()
        seen: list[pb.DuplicateJob] = []
        while True:
            try:
                with closing(self._watched(job_id)) as watched:
                    for job in watched:
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
            time.sleep(pause)

    def _watched(self, job_id: str) -> Generator[pb.DuplicateJob, None, None]:
        call = self._stub.WatchDuplicateJob(pb.WatchDuplicateJobRequest(job_id=job_id))
        try:
            for answer in call:
                yield answer.job
        finally:
            call.cancel()

    def groups(self, job_id: str, *, timeout: float | None = None) -> Iterator[DuplicateGroup]:
        """The groups of a job that has succeeded, largest first; fetched by pages, each within `timeout`."""
        request = pb.ListDuplicateGroupsRequest(job_id=job_id, page_size=PAGE)
        while True:
            answer = self._client._call(self._stub.ListDuplicateGroups, request, timeout)
            yield from (messages.group(group) for group in answer.groups)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    def finish(self, job_id: str, progress: Watcher | None = None) -> list[DuplicateGroup]:
        """Waits for a job and returns its groups. Leaving early, as with Ctrl-C, cancels it."""
        try:
            self.wait(job_id, progress)
            return list(self.groups(job_id))
        except Unavailable:
            raise  # it goes on when the server is back
        except BaseException:
            with suppress(LookalikeError):  # the caller should see the reason for leaving
                self.cancel(job_id, timeout=CANCEL_SECONDS)
            raise

    def cancel(self, job_id: str, *, timeout: float | None = None) -> DuplicateJob:
        """Stops a job; one that has ended stays as it is."""
        request = pb.CancelDuplicateJobRequest(job_id=job_id)
        return messages.job(self._client._call(self._stub.CancelDuplicateJob, request, timeout).job)

    def delete(self, job_id: str, *, timeout: float | None = None) -> None:
        """Deletes a job that has ended, and its groups."""
        self._client._call(
            self._stub.DeleteDuplicateJob, pb.DeleteDuplicateJobRequest(job_id=job_id), timeout
        )


class DuplicateCalls:
    """What a collection can be asked about duplicates."""

    name: str
    _client: Client
    _duplicates: duplicates_pb2_grpc.DuplicateServiceStub

    def find_duplicates(
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
        """Groups of items that show the same picture, the largest group first.

        The collection is seen as it is now. Leaving early, as with Ctrl-C, cancels the job on the server.

        Args:
            threshold: least similarity of a pair; None means the recipe's own.
            precision: in place of a threshold, the precision wanted, by the collection's calibration.
            policy: which item of a group is worth keeping: "largest", "oldest", "most_connected", "sharpest"
                (by the attribute "sharpness"), "max:ATTRIBUTE" or "min:ATTRIBUTE".
            where: only items whose attributes fit.
            since_sequence: only groups with an item written after it, as `CollectionInfo.sequence` tells.
            reference: a filter; only copies of items that fit it are looked for, among those that do not. A
                group's representative is then of the reference, and nothing else in it.
            progress: called with the job a few times a second.
        """
        job = self.start_duplicate_job(
            threshold,
            precision=precision,
            policy=policy,
            where=where,
            since_sequence=since_sequence,
            reference=reference,
        )
        return self._client.jobs.finish(job.id, progress)

    def start_duplicate_job(
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
        """Starts what `find_duplicates` does and returns at once; `client.jobs` tells the rest."""
        request = messages.start_request(
            self.name, threshold, precision, policy, where, since_sequence, reference
        )
        return messages.job(self._client._call(self._duplicates.StartDuplicateJob, request, timeout).job)

    def check_duplicate(
        self,
        image: ImageLike | None = None,
        *,
        vector: object | None = None,
        threshold: float | None = None,
        where: str = "",
        timeout: float | None = None,
    ) -> DuplicateCheck:
        """Which items a picture, or a vector, is a copy of: true when there are any."""
        item = messages.new_item(image, vector, "-", None, self._client.limits())
        request = pb.CheckDuplicateRequest(collection=self.name, item=item, threshold=threshold, where=where)
        return messages.outcome(self._client._call(self._duplicates.CheckDuplicate, request, timeout))

    def add_unless_duplicate(
        self,
        image: ImageLike | None = None,
        *,
        id: str,  # noqa: A002 - the word that the API uses for it
        attributes: Mapping[str, Any] | None = None,
        vector: object | None = None,
        threshold: float | None = None,
        timeout: float | None = None,
    ) -> DuplicateCheck:
        """Writes a picture, or a vector, as an item unless the collection has a copy of it.

        One atomic step: of several copies that are sent at once, by whomever, exactly one is added.
        """
        item = messages.new_item(image, vector, id, attributes, self._client.limits())
        request = pb.AddUnlessDuplicateRequest(collection=self.name, item=item, threshold=threshold)
        answer = self._client._call(self._duplicates.AddUnlessDuplicate, request, timeout)
        return messages.outcome(answer, added=answer.added)
