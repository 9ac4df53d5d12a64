"""Faces: found in a picture, turned upright by five landmarks, and packed weights for both.

    pixels -> detection (networks) -> the largest face -> alignment -> [150, 150, 3] -> backbones.face_resnet

An optional part: `lookalike faces fetch` makes the file of weights that it needs.
"""

from __future__ import annotations

from .alignment import FaceAligner
from .detection import Face, find_faces
from .networks import Detector

__all__ = ["Detector", "Face", "FaceAligner", "find_faces"]
