"""What the blocking and the asynchronous client share: reaching a server, and what its refusals become."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from lookalike import errors
from lookalike.errors import LookalikeError

_STATUS_TRAILER = "grpc-status-details-bin"
_FORGOTTEN = "Internal error from Core"  # grpc.aio's words when it writes to a stream that has just ended
_OURS = ("Channel closed!", "Locally cancelled")  # gRPC's words when this side ends a call
_MIB = 2**20
_LAST_PORT = 65_535

# Calls that may be repeated without harm. Making or deleting a collection and starting a job are not among
# them: their repetition would answer "exists already" or "is not there", or start a second job.
_REPEATABLE = {
    "EmbeddingService": ["Embed"],
    "ModelService": ["GetServerInfo", "ListRecipes", "ListBackbones", "ListNodes"],
    "CollectionService": ["GetCollection", "ListCollections"],
    "ItemService": ["UpsertItems", "GetItems", "ListItems", "DeleteItems"],
    "SearchService": ["Search"],
    "CalibrationService": ["SetCalibration", "GetCalibration", "SetBackground"],
    "DuplicateService": [
        "GetDuplicateJob",
        "ListDuplicateJobs",
        "CancelDuplicateJob",
        "ListDuplicateGroups",
        "CheckDuplicate",
    ],
}


def service_config() -> str:
    """gRPC's own retry policy: at most five attempts within about two seconds."""
    names = [{"service": f"lookalike.v1.{s}", "method": m} for s, calls in _REPEATABLE.items() for m in calls]
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        # A server that stops resets, with CANCELLED, the calls that it has not begun. Those that this side
        # cancels are never tried again, whatever stands here.
        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
    }
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}]})


def channel_options() -> list[tuple[str, Any]]:
    return [
        ("grpc.service_config", service_config()),
        ("grpc.max_send_message_length", -1),  # the server's limits are learned from the server
        ("grpc.max_receive_message_length", 512 * _MIB),
        # A message larger than this buffer is never sent a second time; gRPC's default is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", 64 * _MIB),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # Notices a server that vanished without a word. Servers with gRPC's defaults take pings more often
        # than every five minutes for an attack.
        ("grpc.keepalive_time_ms", 310_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


def checked_target(target: str) -> str:
    """`target` when it can be one. Raises InvalidArgument for a host without a port."""
    if isinstance(target, str):
        host, colon, port = target.rpartition(":")
        named = host and colon and port.isdecimal() and int(port) <= _LAST_PORT
        if named or target.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
            return target
    raise errors.InvalidArgument(
        f"{target!r} is no address of a server: give host:port, as 'localhost:50051', or 'unix:/path'",
        "ADDRESS_INVALID",
    )


def error_of(error: grpc.RpcError, target: str) -> LookalikeError:
    """The error of a call as a class of our own, from the rich status where the server sent one."""
    status = _rich_status(error)
    if status is not None:
        return error_from_status(status)
    code, details = error.code(), error.details() or ""
    if details == _FORGOTTEN:
        return errors.Unavailable(f"the connection to {target} broke", "STREAM_ENDED")
    if "handshake failed" in details:
        return errors.Unavailable(_handshake(target, details), "TLS_FAILED")
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.Unavailable(
            f"nobody answers at {target}; start a server with 'lookalike serve' ({details})", "UNREACHABLE"
        )
    if code is grpc.StatusCode.CANCELLED and not any(words in details for words in _OURS):
        return errors.Unavailable(f"{target} is stopping and reset the call ({details})", "STREAM_ENDED")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded(f"{target} did not answer within the timeout", "DEADLINE_EXCEEDED")
    return error_class(code.name)(details or code.name)


def _handshake(target: str, details: str) -> str:
    """What a failed TLS handshake means, from OpenSSL's words in gRPC's."""
    if "WRONG_VERSION_NUMBER" in details:
        return f"{target} does not speak TLS; connect without it, or start the server with a certificate"
    if "CERTIFICATE_VERIFY_FAILED" in details or "Peer name" in details:
        why = details.rpartition("CERTIFICATE_VERIFY_FAILED: ")[2].removesuffix(": OK")
        return f"the certificate of {target} is not trusted ({why}); give the right authority as ca"
    return f"no encrypted connection to {target} came about ({details})"


def ended_early(target: str) -> LookalikeError:
    return errors.Unavailable(f"{target} ended the stream before it had answered all", "STREAM_ENDED")


def error_from_status(status: status_pb2.Status, source: str = "") -> LookalikeError:
    """The error that a status stands for. `source` names the picture it is about."""
    info = error_info(status)
    message = status.message
    if source:  # which says more than the place in a message that the caller never saw
        message = _about(source, info.metadata["field"], message)
    error = error_class(_code_name(status.code))(message, info.reason, info.metadata)
    retry = error_details_pb2.RetryInfo()
    if any(detail.Unpack(retry) for detail in status.details):
        error.retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    return error


def _about(source: str, field: str, message: str) -> str:
    """The message, with the source in the place of the field where it begins with that."""
    if field and message.startswith(f"{field} "):
        return source + message.removeprefix(field)
    return f"{source}: {message.removeprefix(field + ': ')}"


def error_info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    any(detail.Unpack(info) for detail in status.details)
    return info


def error_class(code: str) -> type[LookalikeError]:
    """The class of a status code, by its name in gRPC."""
    return next((c for c in LookalikeError.__subclasses__() if c.code == code), errors.UnknownError)


def _code_name(number: int) -> str:
    return next((code.name for code in grpc.StatusCode if code.value[0] == number), "UNKNOWN")


def _rich_status(error: grpc.RpcError) -> status_pb2.Status | None:
    trailers: Any = error.trailing_metadata() or ()
    data = next((value for key, value in trailers if key == _STATUS_TRAILER), None)
    return None if data is None else status_pb2.Status.FromString(data)


class Patience:
    """How often a broken stream is opened again: with growing pauses, anew after each bit of progress, and
    all within one timeout, which goes on counting.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self._end = math.inf if timeout is None else time.monotonic() + timeout
        self.progressed()

    def left(self) -> float | None:
        """Seconds until the timeout, 0 when it has passed; None when there is none."""
        return None if self._end == math.inf else max(0.0, self._end - time.monotonic())

    def progressed(self) -> None:
        self._pauses: Iterator[float] = iter((0.1, 0.3, 1.0, 2.0, 4.0, 8.0))

    def pause(self, error: LookalikeError) -> float | None:
        """Seconds to wait before the next attempt, or None when there should be none.

        DeadlineExceeded when the timeout comes before that attempt: a call that is opened with nothing left
        may still be answered, with an error that looks like a passing one.
        """
        passing = isinstance(error, errors.Unavailable) or error.reason in ("QUEUE_FULL", "TOKEN_LIMIT")
        pause = next(self._pauses, None) if passing else None
        if pause is None:
            return None
        # Not before the server's own word, and spread so that clients do not come back as one.
        pause = max(pause, error.retry_after or 0.0) * random.uniform(1.0, 1.5)
        if time.monotonic() + pause >= self._end:
            message = f"the timeout leaves no time for another attempt; the last one ended in: {error}"
            raise errors.DeadlineExceeded(message, "DEADLINE_EXCEEDED") from error
        return pause
