from __future__ import annotations

import numpy as np
import pytest
import torch
from lookalike_extractor.errors import NodeUnknown, RequestInvalid
from lookalike_extractor.feature_maps import draw_feature_maps, inspect_image, principal_colours
from photos import encode, photo


def test_a_photo_is_drawn_with_its_colours_and_strongest_channels() -> None:
    picture = inspect_image(encode(photo("chelsea")), "blocks.2", channels=6)
    assert picture.size == (4 * 228 - 4, 3 * 228 - 4)
    drawn = np.asarray(picture)
    assert drawn[:224, :224].std() > 10
    assert drawn[:224, 228:452].std() > 10


def test_the_strongest_channel_comes_first() -> None:
    features = torch.zeros(3, 4, 4)
    features[1, :2], features[2, 0, 0] = 5.0, 1.0
    drawn = np.asarray(draw_feature_maps(features, np.zeros((8, 8, 3), np.uint8)))
    assert drawn[228 + 50, 50].tolist() == [255, 255, 255]
    assert drawn[228 + 200, 50].tolist() == [0, 0, 0]


def test_places_that_are_alike_have_one_colour() -> None:
    features = torch.randn(16, 1, 1).expand(16, 4, 4).clone()
    features[:, 2:] = torch.randn(16, 1, 1)
    colours = principal_colours(features)
    assert torch.allclose(colours[0, :2], colours[0, 0, 0].expand(2, 4), atol=1e-3)
    assert (colours[0, 0, 0] - colours[0, 3, 0]).abs() > 0.9


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 1, 1), (8, 3, 5)])
def test_the_smallest_maps_have_colours(shape: tuple[int, int, int]) -> None:
    colours = principal_colours(torch.randn(shape))
    assert colours.shape == (3, *shape[1:])
    assert colours.isfinite().all()


def test_a_node_without_places_is_refused() -> None:
    with pytest.raises(RequestInvalid, match="no feature map"):
        inspect_image(encode(photo("chelsea")), "flatten")


def test_an_unknown_node_answers_with_the_nearest() -> None:
    with pytest.raises(NodeUnknown, match=r"blocks\.2"):
        inspect_image(encode(photo("chelsea")), "block.2")
