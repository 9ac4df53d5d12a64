"""Duplicate jobs, their groups and matches as messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from lookalike.v1 import duplicates_pb2 as pb

from lookalike_server.duplicates import Policy
from lookalike_server.duplicates.check import Match
from lookalike_server.duplicates.job import Job, State
from lookalike_server.duplicates.shards import Folder
from lookalike_server.errors import MessageTooLarge, PageTokenInvalid, StoreDamaged

_PAGE_SIZE = 100
_MOST_PAGE_SIZE = 1000
_MOST_PAGE_BYTES = 2 * 1024 * 1024  # gRPC clients refuse messages of more than 4 MiB unless told otherwise

POLICIES = {
    pb.REPRESENTATIVE_POLICY_UNSPECIFIED: Policy.LARGEST,
    pb.REPRESENTATIVE_POLICY_LARGEST: Policy.LARGEST,
    pb.REPRESENTATIVE_POLICY_OLDEST: Policy.OLDEST,
    pb.REPRESENTATIVE_POLICY_MOST_CONNECTED: Policy.MOST_CONNECTED,
    pb.REPRESENTATIVE_POLICY_SHARPEST: Policy.SHARPEST,
    pb.REPRESENTATIVE_POLICY_MAX_ATTRIBUTE: Policy.MAX,
    pb.REPRESENTATIVE_POLICY_MIN_ATTRIBUTE: Policy.MIN,
}
_POLICIES_ON_WIRE = {policy: number for number, policy in POLICIES.items()}
_STATES = {state: pb.JobState.Value(f"JOB_STATE_{state.name}") for state in State}


def job_to_wire(job: Job) -> pb.DuplicateJob:
    status, progress, asked = job.status, job.status.progress, job.task.asked
    recall = progress.recall
    message = pb.DuplicateJob(
        id=job.id,
        collection=job.task.collection,
        threshold=asked.threshold,
        policy=_POLICIES_ON_WIRE[asked.policy],
        policy_attribute=asked.attribute,
        where=job.task.where,
        since_sequence=asked.since,
        reference=job.task.reference,
        precision=job.task.precision,
        state=_STATES[status.state],
        items_done=int(progress.share * progress.items),
        items_total=progress.items,
        pairs_found=progress.pairs,
        group_count=status.groups,
        split_count=status.split,
        sequence=progress.sequence,
        sampled_pairs=recall.pairs if recall else 0,
        sampled_pairs_found=recall.found if recall else 0,
        create_time=_time(job.created),
        end_time=None if status.ended is None else _time(status.ended),
        error=status.error,
    )
    if status.remaining is not None:
        message.remaining_time.FromMilliseconds(int(1000 * status.remaining))
    return message


def _time(seconds: float) -> Timestamp:
    time = Timestamp()
    time.FromMicroseconds(int(seconds * 1_000_000))
    return time


def match_to_wire(match: Match) -> pb.DuplicateMatch:
    return pb.DuplicateMatch(
        item_id=match.id, score=match.score, exact=match.exact, attributes_json=match.attributes_json
    )


def page_of_groups(job: Job, page_size: int, page_token: str) -> pb.ListDuplicateGroupsResponse:
    """One page: no more groups than asked for, and no more bytes than any client takes (but one group at
    least).
    """
    if page_size > _MOST_PAGE_SIZE:
        raise MessageTooLarge(
            f"page_size is {page_size}; one page holds at most {_MOST_PAGE_SIZE} groups.", field="page_size"
        )
    shards = job.groups()
    count = job.status.groups
    start = _start(page_token, count)
    page: list[pb.DuplicateGroup] = []
    size = 0
    for group in _groups(shards, job.id, start, min(count, start + (page_size or _PAGE_SIZE))):
        size += group.ByteSize()
        if page and size > _MOST_PAGE_BYTES:
            break
        page.append(group)
    after = start + len(page)
    return pb.ListDuplicateGroupsResponse(groups=page, next_page_token=str(after) if after < count else "")


def _groups(shards: Folder, job_id: str, start: int, end: int) -> list[pb.DuplicateGroup]:
    """The groups from `start` up to `end`."""
    groups: dict[int, pb.DuplicateGroup] = {}
    for number in range(shards.count("groups")):
        facts = shards.facts("groups", number)
        if facts["first"] >= end or facts["first"] + facts["groups"] <= start:
            continue
        shard = shards.get("groups", number)
        if shard is None:
            raise StoreDamaged(f"The groups of job {job_id} are damaged; start it again.", job=job_id)
        places = shard.table.column("group").to_numpy()
        begin, finish = places.searchsorted([start, end]).tolist()
        for row in shard.table.slice(begin, finish - begin).to_pylist():
            group = groups.setdefault(row["group"], pb.DuplicateGroup())
            group.representative_id = group.representative_id or row["id"]
            group.members.add(
                item_id=row["id"], score=row["score"], exact=row["exact"], attributes_json=row["attributes"]
            )
    return list(groups.values())


def _start(page_token: str, count: int) -> int:
    if not page_token:
        return 0
    if page_token.isascii() and page_token.isdecimal() and len(page_token) < 19 and int(page_token) < count:
        return int(page_token)
    raise PageTokenInvalid(
        f"page_token {page_token!r} was not given by this call; use next_page_token of the page before.",
        field="page_token",
    )
