"""Between messages and values: pure functions, no engine, no device.

Errors become statuses here and nowhere else: `status_of` for a call or for one image of a call.
"""

from __future__ import annotations

import logging
import math
import secrets
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from lookalike.v1 import types_pb2
from lookalike_extractor.errors import ImageMissing, LookalikeError
from numpy.typing import NDArray

from lookalike_server.errors import ArgumentInvalid, InternalError

if TYPE_CHECKING:
    from lookalike_extractor.recipe import Space

DOMAIN = "lookalike.v1"

# A status travels in HTTP/2 trailers, percent-encoded and again in base64, and clients refuse trailers of
# more than 8 KiB: without a bound, an error that quotes a long id would reach nobody.
_MOST_MESSAGE_BYTES = 1024
_MOST_METADATA_BYTES = 256

_DTYPES: dict[int, np.dtype[Any]] = {
    types_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    types_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
}
_DTYPE_NAMES = "DATA_TYPE_FLOAT32 or DATA_TYPE_UINT8"
_METRICS = {"cosine": types_pb2.METRIC_COSINE}

_log = logging.getLogger(__name__)


def tensor_to_array(tensor: types_pb2.Tensor, field: str) -> NDArray[Any]:
    """Returns a read-only view of the tensor's bytes, in its shape; float32 or uint8.

    Raises ArgumentInvalid, naming `field`, when dtype, shape and length do not fit together.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise _wrong(f"{field}.dtype", f"is {tensor.dtype}; it must be {_DTYPE_NAMES}.")
    shape = tuple(tensor.shape)
    if any(size < 0 for size in shape):
        raise _wrong(f"{field}.shape", f"is {list(shape)}; no size may be negative.")
    needed = math.prod(shape) * dtype.itemsize
    if len(tensor.data) != needed:
        raise _wrong(
            f"{field}.data",
            f"has {len(tensor.data)} bytes; shape {list(shape)} of {dtype.name} needs {needed}.",
        )
    return np.frombuffer(tensor.data, dtype).reshape(shape)


def array_to_tensor(array: NDArray[Any]) -> types_pb2.Tensor:
    """Returns a tensor message of a float32 or uint8 array of any shape."""
    if array.dtype == np.uint8:
        return types_pb2.Tensor(dtype=types_pb2.DATA_TYPE_UINT8, shape=array.shape, data=array.tobytes())
    if array.dtype != np.float32:
        raise TypeError(f"arrays travel as float32 or uint8, not as {array.dtype}")
    data = array.astype("<f4", copy=False).tobytes()
    return types_pb2.Tensor(dtype=types_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=data)


def space_to_wire(space: Space) -> types_pb2.EmbeddingSpace:
    return types_pb2.EmbeddingSpace(
        id=space.id, dimension=space.dimension, metric=_METRICS[space.metric], recipe=space.recipe
    )


def image_from_wire(image: types_pb2.Image, field: str) -> bytes | NDArray[np.uint8]:
    """Returns the bytes of an image file, or the pixels uint8 [h, w, 3] that the client decoded.

    Raises ImageMissing when nothing was sent, ArgumentInvalid when the pixels are not such a tensor.
    """
    source = image.WhichOneof("source")
    if source == "pixels":
        return _pixels(image.pixels, f"{field}.pixels")
    if source is None:
        raise ImageMissing(f"{field} has neither data nor pixels; set one of them.", field=field)
    if not image.data:
        raise ImageMissing(f"{field}.data: the image has no bytes", field=f"{field}.data")
    return image.data


def _pixels(tensor: types_pb2.Tensor, field: str) -> NDArray[np.uint8]:
    if tensor.dtype != types_pb2.DATA_TYPE_UINT8:
        raise _wrong(f"{field}.dtype", "must be DATA_TYPE_UINT8.")
    shape = list(tensor.shape)
    if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
        raise _wrong(f"{field}.shape", f"is {shape}; it must be [height, width, 3].")
    return tensor_to_array(tensor, field)


def _wrong(field: str, fault: str) -> ArgumentInvalid:
    return ArgumentInvalid(f"{field} {fault}", field=field)


def duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def status_of(error: BaseException) -> status_pb2.Status:
    """Returns the status that tells a caller of `error`, with an ErrorInfo in its details.

    An error that is not a LookalikeError is our fault: it is logged whole under a short id, and the caller is
    told the id and nothing else. A metadata entry "retry_after_ms" becomes a RetryInfo.
    """
    if not isinstance(error, LookalikeError):
        error = internal(error)
    status = status_pb2.Status(
        code=code_pb2.Code.Value(error.status), message=_bounded(error.message, _MOST_MESSAGE_BYTES)
    )
    metadata = {key: _bounded(value, _MOST_METADATA_BYTES) for key, value in error.metadata.items()}
    retry_after = metadata.pop("retry_after_ms", None)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    )
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo(retry_delay=duration(float(retry_after) / 1000))
        status.details.add().Pack(retry)
    return status


def internal(error: BaseException) -> InternalError:
    """Returns what a caller may know of a fault of ours: an id under which the log holds the rest."""
    incident = secrets.token_hex(4)
    _log.error("incident %s", incident, exc_info=error)
    return InternalError(
        f"The server failed (incident {incident}). Its log tells more under that id.", incident=incident
    )


def _bounded(text: str, most: int) -> str:
    data = text.encode(
        "utf-8", "replace"
    )  # "replace": half of a surrogate pair is no UTF-8 and would not travel
    return data.decode() if len(data) <= most else data[: most - 3].decode("utf-8", "ignore") + "..."
