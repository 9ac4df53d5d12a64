"""The cascade of MTCNN (Zhang et al., arXiv:1604.02878, section 2): propose, refine, decide.

Coordinates are continuous: the left edge of the first column is 0, its middle 0.5. Boxes are
(left, top, right, bottom).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .networks import Detector

LONGEST_SIDE = 640
"""Larger pictures are looked at in this size."""
SMALLEST_FACE = 40
"""In pixels of the picture as it is looked at: a face must fill a sixteenth of a large picture's side."""

_WINDOW, _STRIDE = 12, 2  # of the proposal network
_SHRINK = 0.709  # from one scale to the next: half the area
_THRESHOLDS = (0.6, 0.7, 0.7)  # of the paper's own code, as facenet-pytorch keeps them
_MOST_WINDOWS = 256  # of one picture: a texture may look like thousands of faces to the first network


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
        box: float32 [4], left, top, right, bottom, in pixels.
        score: the probability that it is one.
        landmarks: float32 [5, 2], (x, y) of left eye, right eye, nose, left and right corner of the mouth, as
            the viewer sees left and right.
    """

    box: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32]

    @property
    def area(self) -> float:
        left, top, right, bottom = self.box
        return float(max(0.0, right - left) * max(0.0, bottom - top))


def identity() -> Mapping[str, Any]:
    """All numbers here that shape what is found, for the hash of an embedding space."""
    return {
        "longest_side": LONGEST_SIDE,
        "smallest_face": SMALLEST_FACE,
        "shrink": _SHRINK,
        "thresholds": _THRESHOLDS,
        "most_windows": _MOST_WINDOWS,
    }


@torch.inference_mode()
def find_faces(detector: Detector, pixels: NDArray[np.uint8]) -> list[Face]:
    """Finds the faces of a picture, uint8 [h, w, 3] RGB upright; the likeliest first."""
    height, width = pixels.shape[:2]
    shrink = min(1.0, LONGEST_SIDE / max(height, width))
    planes = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None].float()
    if shrink < 1:
        size = max(1, round(height * shrink)), max(1, round(width * shrink))
        planes = F.interpolate(planes, size, mode="bilinear", antialias=True)
    picture = (planes - 127.5) / 128
    boxes = _refined(detector, picture, _proposed(detector, picture))
    boxes, scores, landmarks = _decided(detector, picture, boxes)
    back = torch.tensor([width / picture.shape[3], height / picture.shape[2]])
    return [
        Face((box * back.repeat(2)).numpy(), float(score), (points * back).numpy())
        for box, score, points in zip(boxes, scores, landmarks, strict=True)
    ]


def _proposed(detector: Detector, picture: Tensor) -> Tensor:
    """Boxes [n, 4] where the first network sees faces, over all scales."""
    height, width = picture.shape[2:]
    scale, found = _WINDOW / SMALLEST_FACE, [picture.new_zeros(0, 5)]
    while min(height, width) * scale >= _WINDOW:
        size = int(height * scale + 1), int(width * scale + 1)
        probability, shift = detector.proposal(F.interpolate(picture, size, mode="area"))
        rows, columns = torch.nonzero(probability[0] >= _THRESHOLDS[0], as_tuple=True)
        corners = torch.stack([columns, rows], dim=1) * _STRIDE / scale
        windows = torch.cat([corners, corners + _WINDOW / scale], dim=1)
        scores = probability[0, rows, columns]
        kept = _nms(windows, scores, 0.5)
        moved = _moved(windows[kept], shift[0, :, rows, columns].t()[kept])
        found.append(torch.cat([moved, scores[kept, None]], dim=1))
        scale *= _SHRINK
    boxes = torch.cat(found)
    return _square(boxes[_nms(boxes[:, :4], boxes[:, 4], 0.7)[:_MOST_WINDOWS], :4])


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    from torchvision.ops import nms  # here, because torchvision takes seconds and most servers know no faces

    kept: Tensor = nms(boxes, scores, threshold)
    return kept


def _refined(detector: Detector, picture: Tensor, boxes: Tensor) -> Tensor:
    if not len(boxes):
        return boxes
    scores, shift = detector.refinement(_windows(picture, boxes, 24))
    sure = scores > _THRESHOLDS[1]
    boxes, scores, shift = boxes[sure], scores[sure], shift[sure]
    kept = _nms(boxes, scores, 0.7)
    return _square(_moved(boxes[kept], shift[kept]))


def _decided(detector: Detector, picture: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [n, 4], probabilities [n] and landmarks [n, 5, 2] of faces, the likeliest first."""
    if not len(boxes):
        return boxes, boxes.new_zeros(0), boxes.new_zeros(0, 5, 2)
    scores, shift, points = detector.output(_windows(picture, boxes, 48))
    sure = scores > _THRESHOLDS[2]
    boxes, scores, shift, points = boxes[sure], scores[sure], shift[sure], points[sure]
    landmarks = boxes[:, None, :2] + points * _sides(boxes)[:, None]
    boxes = _moved(boxes, shift)
    kept = _distinct(boxes, scores)
    return boxes[kept], scores[kept], landmarks[kept]


def _windows(picture: Tensor, boxes: Tensor, side: int) -> Tensor:
    """What is in each box, [n, 3, side, side]; outside the picture it is black."""
    height, width = picture.shape[2:]
    cut = []
    for left, top, right, bottom in boxes.round().int().tolist():
        right, bottom = max(right, left + 1), max(bottom, top + 1)
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if x0 >= x1 or y0 >= y1:
            cut.append(picture.new_full((1, 3, side, side), -127.5 / 128))
            continue
        margins = (x0 - left, right - x1, y0 - top, bottom - y1)
        padded = F.pad(picture[:, :, y0:y1, x0:x1], margins, value=-127.5 / 128)
        cut.append(F.interpolate(padded, (side, side), mode="area"))
    return torch.cat(cut)


def _sides(boxes: Tensor) -> Tensor:
    """[n, 4] -> width and height, [n, 2]."""
    return boxes[:, 2:] - boxes[:, :2]


def _moved(boxes: Tensor, shift: Tensor) -> Tensor:
    return boxes + shift * _sides(boxes).repeat(1, 2)


def _square(boxes: Tensor) -> Tensor:
    """The squares around the middle of each box, as large as its longer side, at most twice a picture's."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = _sides(boxes).amax(dim=1, keepdim=True).clamp(1, 2 * LONGEST_SIDE) / 2
    return torch.cat([middle - half, middle + half], dim=1)


def _distinct(boxes: Tensor, scores: Tensor) -> list[int]:
    """Indices of the likeliest boxes; of two that share over .7 of the smaller one's area, the likelier."""
    kept: list[int] = []
    area = _sides(boxes).clamp(min=0).prod(dim=1)
    for i in scores.argsort(descending=True).tolist():
        others = boxes[kept]
        common = torch.minimum(others[:, 2:], boxes[i, 2:]) - torch.maximum(others[:, :2], boxes[i, :2])
        shared = common.clamp(min=0).prod(dim=1)
        if not bool((shared > 0.7 * torch.minimum(area[kept], area[i])).any()):
            kept.append(i)
    return kept
