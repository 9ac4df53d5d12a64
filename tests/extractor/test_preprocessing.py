"""Pixels made to a backbone's input size."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lookalike_extractor.preprocessing import Preprocessing, fit

sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(
    given_size=sizes,
    wanted=sizes,
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    seed=st.integers(0, 9),
)
def test_resized_pixels_are_those_of_torch_plane_by_plane(
    given_size: tuple[int, int], wanted: tuple[int, int], interpolation: str, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*given_size, 3), np.uint8)
    wish = Preprocessing(*wanted, "squash", (0, 0, 0), (1, 1, 1), interpolation=interpolation)
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[:, None]
    expected = F.interpolate(planes, wanted, mode=interpolation, antialias=True)[:, 0]
    assert np.array_equal(fit(pixels, wish), expected.permute(1, 2, 0).numpy())
