"""What collections can do with scores: learn which means which precision, make them comparable."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from typing import TYPE_CHECKING

import numpy as np

from lookalike.errors import InvalidArgument
from lookalike.records import Calibration, Threshold
from lookalike.v1 import calibration_pb2 as pb
from lookalike.v1 import calibration_pb2_grpc, types_pb2

if TYPE_CHECKING:
    from lookalike.aio import AsyncClient
    from lookalike.client import Client


class CalibrationCalls:
    """The part of `Collection` that is about what scores mean."""

    name: str
    _client: Client
    _calibration: calibration_pb2_grpc.CalibrationServiceStub

    def calibrate(
        self,
        scores: Iterable[float],
        same: Iterable[bool],
        pictures: Iterable[int] | None = None,
        *,
        precisions: Iterable[float] = (),
        missed: int = 0,
        normalized: bool = False,
        timeout: float | None = None,
    ) -> Calibration:
        """Learns which score means which precision, from pairs of a query and an item with the truth of each.

        The thresholds are kept with the collection, in place of those it had; as it grows, searches take
        higher ones. `lookalike calibrate` makes such pairs from copies of the collection's own pictures.

        Args:
            scores: of each pair, as a search gives them.
            same: whether both show the same picture; at least 50 pairs do, and some do not.
            pictures: a number for the picture that each query was made of; pairs of one are not independent.
            precisions: to find thresholds for; none means 0.90, 0.95 and 0.99.
            missed: pairs of the same picture that the search did not return.
            normalized: whether the scores are of searches with `normalize`, which have their own thresholds.

        Raises FailedPrecondition (FIT_REFUSED) for too few pairs.
        """
        pairs = scored_pairs(scores, same, pictures, missed)
        request = pb.SetCalibrationRequest(
            collection=self.name, pairs=pairs, precisions=precisions, normalized=normalized
        )
        answer = self._client._call(self._calibration.SetCalibration, request, timeout)
        return calibration(answer.calibration)

    def calibration(self, *, normalized: bool = False, timeout: float | None = None) -> Calibration:
        """The thresholds that `calibrate` kept, and the scores in force now that the collection is larger.

        Raises FailedPrecondition (NOT_CALIBRATED) without any.
        """
        request = pb.GetCalibrationRequest(collection=self.name, normalized=normalized)
        answer = self._client._call(self._calibration.GetCalibration, request, timeout)
        return calibration(answer.calibration)

    def set_background(self, vectors: object, *, timeout: float | None = None) -> None:
        """Sets descriptors of pictures that match nothing in the collection, for `search(normalize=True)`.

        `vectors` is [n, dimension], n from 3 to 1000; a hundred are enough. None removes them. A calibration
        of normalised scores is forgotten.
        """
        self._client._call(self._calibration.SetBackground, background(self.name, vectors), timeout)


class AsyncCalibrationCalls:
    """The part of `AsyncCollection` that is about what scores mean."""

    name: str
    _client: AsyncClient
    _calibration: calibration_pb2_grpc.CalibrationServiceStub

    async def calibrate(
        self,
        scores: Iterable[float],
        same: Iterable[bool],
        pictures: Iterable[int] | None = None,
        *,
        precisions: Iterable[float] = (),
        missed: int = 0,
        normalized: bool = False,
        timeout: float | None = None,
    ) -> Calibration:
        """Like `Collection.calibrate`."""
        pairs = scored_pairs(scores, same, pictures, missed)
        request = pb.SetCalibrationRequest(
            collection=self.name, pairs=pairs, precisions=precisions, normalized=normalized
        )
        answer = await self._client._call(self._calibration.SetCalibration, request, timeout)
        return calibration(answer.calibration)

    async def calibration(self, *, normalized: bool = False, timeout: float | None = None) -> Calibration:
        """Like `Collection.calibration`."""
        request = pb.GetCalibrationRequest(collection=self.name, normalized=normalized)
        answer = await self._client._call(self._calibration.GetCalibration, request, timeout)
        return calibration(answer.calibration)

    async def set_background(self, vectors: object, *, timeout: float | None = None) -> None:
        """Like `Collection.set_background`."""
        await self._client._call(self._calibration.SetBackground, background(self.name, vectors), timeout)


def scored_pairs(
    scores: Iterable[float], same: Iterable[bool], pictures: Iterable[int] | None, missed: int
) -> pb.ScoredPairs:
    """Pairs whose truth is known. Raises InvalidArgument for values of another kind."""
    try:
        return pb.ScoredPairs(
            scores=[float(score) for score in scores],
            same=[bool(one) for one in same],
            pictures=[] if pictures is None else [int(picture) for picture in pictures],
            missed=missed,
        )
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"pairs are numbers, truths and numbers of pictures: {error}", "ARGUMENT_INVALID"
        ) from None


def background(collection: str, vectors: object) -> pb.SetBackgroundRequest:
    """Raises InvalidArgument when `vectors` is no matrix of numbers."""
    request = pb.SetBackgroundRequest(collection=collection)
    if vectors is None:
        return request
    try:
        rows = np.asarray(vectors, dtype="<f4")
    except (TypeError, ValueError):
        rows = np.empty(0, "<f4")
    if rows.ndim != 2 or not rows.size:
        raise InvalidArgument("a background is numbers [n, dimension]", "DESCRIPTOR_INVALID")
    request.descriptors.CopyFrom(
        types_pb2.Tensor(dtype=types_pb2.DATA_TYPE_FLOAT32, shape=rows.shape, data=rows.tobytes())
    )
    return request


def calibration(wire: pb.Calibration) -> Calibration:
    return Calibration(
        wire.collection,
        tuple(map(_threshold, wire.thresholds)),
        wire.same_pairs,
        wire.different_pairs,
        wire.missed_pairs,
        wire.item_count,
        wire.create_time.ToDatetime(tzinfo=UTC),
        wire.normalized,
        wire.current_item_count,
    )


def _threshold(wire: pb.Threshold) -> Threshold:
    return Threshold(
        wire.precision,
        wire.min_score if wire.HasField("min_score") else None,
        wire.min_score_low if wire.HasField("min_score_low") else None,
        wire.min_score_high if wire.HasField("min_score_high") else None,
        wire.reached,
        wire.reached_low,
        wire.reached_high,
        wire.recall,
        wire.current_score if wire.HasField("current_score") else None,
    )
