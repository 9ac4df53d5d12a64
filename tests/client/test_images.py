"""Whatever holds a picture becomes the message that carries it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from lookalike.errors import ImageUnusable
from lookalike.images import image_to_wire, is_image, source_of
from lookalike.v1 import types_pb2
from photos import photo, photo_paths
from PIL import Image

MOST = 2**20


def test_the_bytes_of_a_file_travel_as_they_are() -> None:
    path = photo_paths()["chelsea"]
    for form in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        assert image_to_wire(form, MOST).data == path.read_bytes()


def test_pixels_travel_as_rgb() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    wire = image_to_wire(pixels, MOST).pixels
    assert (wire.dtype, list(wire.shape), wire.data) == (
        types_pb2.DATA_TYPE_UINT8,
        [2, 4, 3],
        pixels.tobytes(),
    )


def test_a_view_that_is_not_contiguous_travels_in_its_own_order() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert image_to_wire(pixels[:, ::-1], MOST).pixels.data == pixels[:, ::-1].tobytes()


def test_grey_pixels_become_three_equal_channels() -> None:
    wire = image_to_wire(np.array([[1, 2]], np.uint8), MOST).pixels
    assert (list(wire.shape), wire.data) == ([1, 2, 3], bytes([1, 1, 1, 2, 2, 2]))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "I;16"])
def test_a_pil_image_travels_without_loss(mode: str) -> None:
    image = photo("chelsea").resize((32, 24))
    image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
    with Image.open(io.BytesIO(image_to_wire(image, MOST).data)) as again:
        assert again.mode == mode
        assert again.tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV"])
def test_a_pil_image_in_another_colour_system_travels_as_rgb(mode: str) -> None:
    image = photo("chelsea").resize((32, 24)).convert(mode)
    with Image.open(io.BytesIO(image_to_wire(image, MOST).data)) as again:
        assert again.tobytes() == image.convert("RGB").tobytes()


def test_the_orientation_of_a_pil_image_travels_along() -> None:
    image = photo("chelsea").resize((32, 24))
    image.getexif()[0x0112] = 6
    with Image.open(io.BytesIO(image_to_wire(image, MOST).data)) as again:
        assert again.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("/nowhere/cat.jpg", "no such file"),
        ("/", "folder"),
        (np.zeros((4, 4, 3), np.float32), r"astype\('uint8'\)"),
        (np.zeros((3, 4, 4), np.uint8), "transpose"),
        (np.zeros((4, 4, 4), np.uint8), "alpha"),
        (np.zeros((2, 4, 4, 3), np.uint8), "as a list"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (np.zeros(4, np.uint8), r"\[4\]"),
        (7, "int is no picture"),
        (None, "NoneType is no picture"),
        (b"x" * (MOST + 1), "1,048,577 bytes, the server takes at most 1,048,576"),
    ],
)
def test_what_is_no_picture_is_refused_with_what_to_do(image: object, told: str) -> None:
    with pytest.raises(ImageUnusable, match=told):
        image_to_wire(image, MOST)


def test_a_file_over_the_limit_is_not_even_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.tif"
    with huge.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(ImageUnusable, match="1,000,000,000,000 bytes"):
        image_to_wire(huge, MOST)


def test_a_truncated_pil_image_is_refused() -> None:
    data = photo_paths()["chelsea"].read_bytes()
    with Image.open(io.BytesIO(data[: len(data) // 2])) as image, pytest.raises(ImageUnusable, match="PIL"):
        image_to_wire(image, MOST)


def test_pictures_are_told_from_lists_of_them() -> None:
    for one in ("cat.jpg", Path("cat.jpg"), b"", np.zeros((2, 2), np.uint8), photo("chelsea")):
        assert is_image(one)
    assert not is_image(["cat.jpg"])
    assert not is_image(iter([]))


def test_messages_name_a_picture_by_its_path_or_its_place() -> None:
    assert source_of(Path("a/cat.jpg"), 3) == "a/cat.jpg"
    assert source_of(b"", 3) == "images[3]"
