"""Duplicate jobs and the question about one picture, as messages and back; shared by both clients."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from lookalike import _entries, _shared, _wire
from lookalike.errors import Cancelled, InvalidArgument, LookalikeError, Unavailable
from lookalike.images import ImageLike
from lookalike.records import (
    DuplicateCheck,
    DuplicateGroup,
    DuplicateJob,
    DuplicateMatch,
    DuplicateMember,
    Limits,
)
from lookalike.v1 import duplicates_pb2 as pb
from lookalike.v1 import items_pb2

POLICIES = {
    "largest": pb.REPRESENTATIVE_POLICY_LARGEST,
    "oldest": pb.REPRESENTATIVE_POLICY_OLDEST,
    "most_connected": pb.REPRESENTATIVE_POLICY_MOST_CONNECTED,
    "sharpest": pb.REPRESENTATIVE_POLICY_SHARPEST,
}
_BY_ATTRIBUTE = {
    "max": pb.REPRESENTATIVE_POLICY_MAX_ATTRIBUTE,
    "min": pb.REPRESENTATIVE_POLICY_MIN_ATTRIBUTE,
}
_POLICY_NAMES = {number: name for name, number in (POLICIES | _BY_ATTRIBUTE).items()}


def start_request(
    collection: str,
    threshold: float | None,
    precision: float | None,
    policy: str,
    where: str,
    since_sequence: int,
    reference: str,
) -> pb.StartDuplicateJobRequest:
    """Raises InvalidArgument for an unknown policy."""
    number, attribute = _policy(policy)
    return pb.StartDuplicateJobRequest(
        collection=collection,
        threshold=threshold,
        precision=precision,
        policy=number,
        policy_attribute=attribute,
        where=where,
        since_sequence=since_sequence,
        reference=reference,
    )


def _policy(name: str) -> tuple[pb.RepresentativePolicy.ValueType, str]:
    if name in POLICIES:
        return POLICIES[name], ""
    kind, _, attribute = name.partition(":")
    if kind in _BY_ATTRIBUTE and attribute:
        return _BY_ATTRIBUTE[kind], attribute
    raise InvalidArgument(
        f"there is no policy {name!r}; use one of {', '.join(POLICIES)}, max:ATTRIBUTE, min:ATTRIBUTE",
        "POLICY_UNKNOWN",
    )


def job(wire: pb.DuplicateJob) -> DuplicateJob:
    policy = _POLICY_NAMES.get(wire.policy, "largest")
    remaining = wire.remaining_time.ToMilliseconds() / 1000 if wire.HasField("remaining_time") else None
    return DuplicateJob(
        wire.id,
        wire.collection,
        wire.threshold,
        f"{policy}:{wire.policy_attribute}" if wire.policy_attribute else policy,
        pb.JobState.Name(wire.state).removeprefix("JOB_STATE_").lower(),
        wire.items_done,
        wire.items_total,
        wire.pairs_found,
        wire.group_count,
        wire.sequence,
        wire.sampled_pairs,
        wire.sampled_pairs_found,
        remaining=remaining,
        precision=wire.precision or None,
        where=wire.where,
        since_sequence=wire.since_sequence,
        reference=wire.reference,
        created=_time(wire.create_time),
        ended=_time(wire.end_time) if wire.HasField("end_time") else None,
        error=_shared.error_from_status(wire.error).message if wire.error.code else "",
        split_count=wire.split_count,
    )


def _time(wire: Timestamp) -> datetime:
    return wire.ToDatetime(tzinfo=UTC)


def has_ended(wire: pb.DuplicateJob) -> bool:
    return wire.state not in (pb.JOB_STATE_PENDING, pb.JOB_STATE_RUNNING)


def check_success(wire: pb.DuplicateJob | None) -> pb.DuplicateJob:
    """Raises what kept a job that was watched to its end from succeeding."""
    if wire is None or not has_ended(wire):
        raise Unavailable("the server stopped before the search for duplicates had ended", "STREAM_ENDED")
    if wire.state == pb.JOB_STATE_FAILED:
        raise _shared.error_from_status(wire.error)
    if wire.state == pb.JOB_STATE_CANCELLED:
        raise Cancelled("somebody cancelled the search for duplicates on the server", "CANCELLED")
    return wire


def group(wire: pb.DuplicateGroup) -> DuplicateGroup:
    members = tuple(
        DuplicateMember(m.item_id, m.score, m.exact, _wire.attributes_from_json(m.attributes_json))
        for m in wire.members
    )
    return DuplicateGroup(wire.representative_id, members)


def new_item(
    image: ImageLike | None,
    vector: object | None,
    item_id: str,
    attributes: Mapping[str, Any] | None,
    limits: Limits,
) -> items_pb2.NewItem:
    """An item of a picture or of a descriptor. Raises what is wrong with it."""
    if (image is None) == (vector is None):
        raise InvalidArgument("give a picture or a vector, one of the two", "ARGUMENT_INVALID")
    if image is None:
        (entry,) = _entries.vector_entries([item_id], [vector], [attributes])
    else:
        (entry,) = _entries.item_entries([image], [item_id], [attributes], limits)
    if entry.payload is None:
        raise entry.error or LookalikeError(entry.source)
    return entry.payload


def outcome(
    wire: pb.CheckDuplicateResponse | pb.AddUnlessDuplicateResponse, *, added: bool = False
) -> DuplicateCheck:
    matches = tuple(
        DuplicateMatch(m.item_id, m.score, m.exact, _wire.attributes_from_json(m.attributes_json))
        for m in wire.matches
    )
    return DuplicateCheck(matches, wire.threshold, wire.sequence, added)
