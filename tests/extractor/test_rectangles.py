"""Pictures inside pictures are found by their edges."""

from __future__ import annotations

import numpy as np
import pytest
from lookalike_extractor.rectangles import Rectangle, find_rectangles
from lookalike_extractor.views import pasted_views
from photos import photo
from PIL import Image


def pasted(scale: float, left: float, top: float) -> tuple[np.ndarray, Rectangle]:
    """A cat in a photo of a rocket, and where it is."""
    canvas, cat = photo("rocket").convert("RGB"), photo("chelsea").convert("RGB")
    width, height = round(scale * canvas.width), round(scale * canvas.height)
    x, y = round(left * canvas.width), round(top * canvas.height)
    canvas.paste(cat.resize((width, height)), (x, y))
    w, h = canvas.size
    return np.asarray(canvas), Rectangle(x / w, y / h, (x + width) / w, (y + height) / h)


@pytest.mark.parametrize(("scale", "left", "top"), [(0.35, 0.1, 0.5), (0.5, 0.4, 0.3), (0.6, 0.05, 0.2)])
def test_a_pasted_photo_is_the_likeliest_rectangle(scale: float, left: float, top: float) -> None:
    pixels, truth = pasted(scale, left, top)
    assert find_rectangles(pixels)[0].overlap(truth) > 0.85


def test_the_views_are_the_whole_and_what_is_pasted() -> None:
    pixels, truth = pasted(0.5, 0.4, 0.3)
    whole, part, *_ = pasted_views(pixels)
    assert whole is pixels
    assert part.size / whole.size == pytest.approx(truth.area, rel=0.1)


def test_a_plain_picture_has_no_rectangles() -> None:
    assert find_rectangles(np.full((300, 200, 3), 90, np.uint8)) == []
    assert len(pasted_views(np.full((300, 200, 3), 90, np.uint8))) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_the_smallest_pictures_have_views(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert all(view.size for view in pasted_views(noise))


def test_rectangles_overlap_as_geometry_says() -> None:
    left, right = Rectangle(0, 0, 0.5, 1), Rectangle(0.25, 0, 0.75, 1)
    assert left.overlap(right) == pytest.approx(1 / 3)
    assert left.overlap(Rectangle(0.5, 0, 1, 1)) == 0


def test_a_rectangle_cuts_what_is_inside() -> None:
    image = Image.new("RGB", (100, 60))
    image.paste("red", (20, 30, 70, 60))
    cut = Rectangle(0.2, 0.5, 0.7, 1.0).cut(np.asarray(image))
    assert cut.shape == (30, 50, 3)
    assert (cut[..., 0] == 255).all()
