"""A search for duplicates from start to groups, for the blocking client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc

from lookalike import _shared, _wire
from lookalike.errors import LookalikeError
from lookalike.records import DuplicateGroup, DuplicateJob
from lookalike.v1 import duplicates_pb2, duplicates_pb2_grpc

if TYPE_CHECKING:
    from lookalike.client import Client

_PAGE = 1000
CANCEL_SECONDS = 2.0

Stub = duplicates_pb2_grpc.DuplicateServiceStub
Watcher = Callable[[DuplicateJob], None]


def run(
    client: Client, stub: Stub, request: duplicates_pb2.StartDuplicateJobRequest, progress: Watcher | None
) -> list[DuplicateGroup]:
    """Starts a job, watches it and fetches its groups. Whatever ends this early cancels the job."""
    job_id = client._call(stub.StartDuplicateJob, request, None).job.id
    try:
        _watch(client, stub, job_id, progress)
        return list(_groups(client, stub, job_id))
    except BaseException:
        _cancel(client, stub, job_id)
        raise


def _watch(client: Client, stub: Stub, job_id: str, progress: Watcher | None) -> None:
    call = stub.WatchDuplicateJob(duplicates_pb2.WatchDuplicateJobRequest(job_id=job_id))
    job = None
    try:
        for answer in call:
            job = answer.job
            if progress is not None:
                progress(_wire.job(job))
    except grpc.RpcError as error:
        raise _shared.error_of(error, client.target) from None
    finally:
        call.cancel()
    _wire.check_success(job)


def _groups(client: Client, stub: Stub, job_id: str) -> Iterator[DuplicateGroup]:
    request = duplicates_pb2.ListDuplicateGroupsRequest(job_id=job_id, page_size=_PAGE)
    while True:
        answer = client._call(stub.ListDuplicateGroups, request, None)
        yield from (_wire.group(group) for group in answer.groups)
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def _cancel(client: Client, stub: Stub, job_id: str) -> None:
    """Best effort: what the caller should see is the reason for leaving."""
    try:
        request = duplicates_pb2.CancelDuplicateJobRequest(job_id=job_id)
        client._call(stub.CancelDuplicateJob, request, CANCEL_SECONDS)
    except LookalikeError:
        return
