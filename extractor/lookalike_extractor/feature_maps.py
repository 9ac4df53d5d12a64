"""Seeing what a node sees: its feature maps as one picture."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .backbones import load_backbone
from .errors import RequestInvalid
from .extraction import create_feature_extractor
from .images import ImageLimits, decode
from .preprocessing import Pixels

_TILE = 224
_COLUMNS = 4
_GAP = 4


def inspect_image(
    data: bytes,
    node: str,
    backbone: str = "efficientnet_lite0",
    weights: str | None = None,
    channels: int = 8,
) -> Image.Image:
    """Draws what a node of a backbone yields for an image file.

    Returns:
        RGB: in the first row the image as the backbone takes it, and the first three principal components of
        the feature map as red, green and blue; then the strongest channels, strongest first.

    Raises:
        ImageError, BackboneUnknown, WeightsUnavailable, NodeUnknown.
        RequestInvalid: the node yields no feature map [n, c, h, w].
    """
    loaded = load_backbone(backbone, weights)
    prep = loaded.preprocessing
    pixels = decode(data, prep, ImageLimits())
    x = (torch.from_numpy(pixels) / 255 - torch.tensor(prep.mean)) / torch.tensor(prep.std)
    x = x.permute(2, 0, 1)[None]
    extractor = create_feature_extractor(loaded.module, {node: node}, example_inputs=x).eval()
    with torch.inference_mode():
        features = extractor(x)[node]
    if features.ndim != 4:
        raise RequestInvalid(
            f"{node} yields {list(features.shape)}, no feature map [n, c, h, w]; choose another"
        )
    return draw_feature_maps(features[0], pixels, channels)


def draw_feature_maps(features: Tensor, pixels: Pixels, channels: int = 8) -> Image.Image:
    """Draws a feature map [c, h, w] beside the image it came from, uint8 [h', w', 3]."""
    order = features.abs().mean(dim=(1, 2)).argsort(descending=True)[:channels]
    strongest = [_tile(_stretched(features[i])[None].expand(3, -1, -1)) for i in order]
    photo = _tile(torch.from_numpy(np.array(pixels)).permute(2, 0, 1) / 255)
    return _sheet([photo, _tile(principal_colours(features))], strongest)


def principal_colours(features: Tensor) -> Tensor:
    """The first three principal components over the places of a map, [c, h, w] -> [3, h, w] in 0..1.

    Signs are chosen so that the value farthest from the middle is positive: the same picture at every run.
    """
    c, h, w = features.shape
    places = features.reshape(c, h * w).T.double()
    places = places - places.mean(dim=0)
    left, strength, _ = torch.linalg.svd(places, full_matrices=False)
    scores = F.pad((left * strength)[:, :3], (0, max(0, 3 - min(c, h * w))))
    farthest = scores.gather(0, scores.abs().argmax(dim=0, keepdim=True))
    scores = scores * torch.where(farthest < 0, -1.0, 1.0)
    return torch.stack([_stretched(score.reshape(h, w)) for score in scores.T]).float()


def _stretched(plane: Tensor) -> Tensor:
    """The values between the 1st and the 99th percentile over 0..1; 0 where all are alike."""
    low, high = plane.double().flatten().quantile(torch.tensor([0.01, 0.99], dtype=torch.double))
    stretched: Tensor = (plane - low) / (high - low).clamp(min=1e-12)
    return stretched.clamp(0, 1).float()


def _tile(planes: Tensor) -> NDArray[np.uint8]:
    """[3, h, w] in 0..1 -> uint8 [224, 224, 3]; places of a map stay visible as squares."""
    grown = F.interpolate(planes[None].float(), (_TILE, _TILE), mode="nearest")[0]
    return (grown * 255).round().byte().permute(1, 2, 0).numpy()


def _sheet(*rows: list[NDArray[np.uint8]]) -> Image.Image:
    lines = [row[i : i + _COLUMNS] for row in rows for i in range(0, len(row), _COLUMNS)]
    pitch = _TILE + _GAP
    sheet = Image.new("RGB", (_COLUMNS * pitch - _GAP, len(lines) * pitch - _GAP), "white")
    for y, line in enumerate(lines):
        for x, tile in enumerate(line):
            sheet.paste(Image.fromarray(tile), (x * pitch, y * pitch))
    return sheet
