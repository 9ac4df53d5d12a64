"""CalibrationService: which score means which precision in a collection."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from lookalike.v1 import calibration_pb2 as pb
from lookalike.v1 import calibration_pb2_grpc
from lookalike_extractor.calibration import PRECISIONS, ScoredPairs, Threshold
from numpy.typing import NDArray

from lookalike_server.background import set_background
from lookalike_server.calibrations import Calibration, check_precision, get_calibration, set_calibration
from lookalike_server.catalog import Catalog
from lookalike_server.collection import Collection
from lookalike_server.errors import ArgumentInvalid, MessageTooLarge
from lookalike_server.services.spaces import in_thread
from lookalike_server.wire import tensor_to_array

_MOST_PAIRS = 500_000
_MOST_PRECISIONS = 100


class CalibrationServicer(calibration_pb2_grpc.CalibrationServiceServicer):
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def SetCalibration(  # noqa: N802
        self, request: pb.SetCalibrationRequest, context: Any
    ) -> pb.SetCalibrationResponse:
        collection = self._catalog.get(request.collection)
        pairs, precisions = _pairs(request.pairs), _precisions(request)
        learned = await in_thread(
            self._catalog.workers, set_calibration, collection, pairs, precisions, request.normalized
        )
        return pb.SetCalibrationResponse(calibration=_to_wire(collection, learned))

    async def GetCalibration(  # noqa: N802
        self, request: pb.GetCalibrationRequest, context: Any
    ) -> pb.GetCalibrationResponse:
        collection = self._catalog.get(request.collection)
        kept = await in_thread(self._catalog.workers, get_calibration, collection, request.normalized)
        return pb.GetCalibrationResponse(calibration=_to_wire(collection, kept))

    async def SetBackground(  # noqa: N802
        self, request: pb.SetBackgroundRequest, context: Any
    ) -> pb.SetBackgroundResponse:
        collection = self._catalog.get(request.collection)
        await in_thread(self._catalog.workers, set_background, collection, _rows(request))
        return pb.SetBackgroundResponse()


def _rows(request: pb.SetBackgroundRequest) -> NDArray[np.float32]:
    if not request.HasField("descriptors"):
        return np.empty((0, 0), np.float32)
    rows = tensor_to_array(request.descriptors, "descriptors")
    if rows.dtype != np.float32 or rows.ndim != 2 or not len(rows):
        raise ArgumentInvalid(
            f"descriptors are {rows.dtype} {list(rows.shape)}; send float32 [n, dimension].",
            field="descriptors",
        )
    return rows


def _pairs(wire: pb.ScoredPairs) -> ScoredPairs:
    count = len(wire.scores)
    if count > _MOST_PAIRS:
        raise MessageTooLarge(
            f"pairs.scores holds {count:,}; send at most {_MOST_PAIRS:,}.", field="pairs.scores"
        )
    for name, length in (("same", len(wire.same)), ("pictures", len(wire.pictures) or count)):
        if length != count:
            raise ArgumentInvalid(
                f"pairs.{name} holds {length} values for {count} scores; send one for each.",
                field=f"pairs.{name}",
            )
    scores = np.array(wire.scores, np.float32)
    if not np.isfinite(scores).all():
        raise ArgumentInvalid("pairs.scores holds values that are no numbers.", field="pairs.scores")
    pictures = np.array(wire.pictures, np.intp) if wire.pictures else np.arange(count)
    return ScoredPairs(scores, np.array(wire.same, np.bool_), pictures, wire.missed)


def _precisions(request: pb.SetCalibrationRequest) -> list[float]:
    if len(request.precisions) > _MOST_PRECISIONS:
        raise MessageTooLarge(
            f"precisions holds {len(request.precisions)}; send at most {_MOST_PRECISIONS}.",
            field="precisions",
        )
    for i, precision in enumerate(request.precisions):
        check_precision(precision, f"precisions[{i}]")
    return list(request.precisions or PRECISIONS)


def _to_wire(collection: Collection, calibration: Calibration) -> pb.Calibration:
    count = collection.count
    message = pb.Calibration(
        collection=collection.name,
        thresholds=map(_threshold, calibration.thresholds, calibration.scores(count)),
        same_pairs=calibration.same,
        different_pairs=calibration.different,
        missed_pairs=calibration.missed,
        item_count=calibration.items,
        normalized=calibration.normalized,
        current_item_count=count,
    )
    message.create_time.FromMilliseconds(round(calibration.created * 1000))
    return message


def _threshold(threshold: Threshold, now: float) -> pb.Threshold:
    def known(score: float) -> float | None:
        return score if math.isfinite(score) else None

    return pb.Threshold(
        precision=threshold.precision,
        min_score=known(threshold.similarity),
        min_score_low=known(threshold.low),
        min_score_high=known(threshold.high),
        reached=threshold.reached,
        reached_low=threshold.reached_low,
        reached_high=threshold.reached_high,
        recall=threshold.recall,
        current_score=known(now),
    )
