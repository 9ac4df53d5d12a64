from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lookalike_extractor.errors import (
    ImageCorrupt,
    ImageError,
    ImageFormatUnsupported,
    ImageMissing,
    ImageTooLarge,
    ImageTruncated,
    PixelLimit,
    RecipeInvalid,
)
from lookalike_extractor.images import Header, ImageLimits, decode, sniff
from lookalike_extractor.preprocessing import Preprocessing, fit
from photos import encode, photo, photo_paths
from PIL import Image, ImageOps

SQUASH = Preprocessing(64, 64, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CROP = Preprocessing(64, 64, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), crop=1.0)
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]


def coffee(width: int = 150, height: int = 100) -> Image.Image:
    return photo("coffee").resize((width, height))


def with_orientation(image: Image.Image, orientation: int, kind: str = "JPEG", **options: object) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return encode(image, kind, exif=exif, **options)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


# Headers


@pytest.mark.parametrize("kind", FORMATS)
def test_a_header_tells_format_and_size(kind: str) -> None:
    assert sniff(encode(coffee(), kind)) == Header(kind, 150, 100)


@pytest.mark.parametrize("options", [{"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}])
def test_every_kind_of_webp_tells_its_size(options: dict[str, object]) -> None:
    assert sniff(encode(coffee(), "WEBP", **options)) == Header("WEBP", 150, 100)


def test_a_big_tiff_tells_its_size() -> None:
    assert sniff(encode(coffee(), "TIFF", big_tiff=True)) == Header("TIFF", 150, 100)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_header_tells_the_size_of_the_upright_image(kind: str) -> None:
    assert sniff(with_orientation(coffee(), 6, kind)) == Header(kind, 100, 150)


def test_a_header_is_read_from_every_photo() -> None:
    for name, path in photo_paths().items():
        header = sniff(path.read_bytes())
        assert (header.width, header.height) == photo(name).size


# Pixels


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_picture(kind: str) -> None:
    reference = np.asarray(coffee(64, 64))
    assert difference(decode(encode(coffee(64, 64), kind), SQUASH), reference) < 9


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_applied_as_pillow_applies_it(kind: str, orientation: int) -> None:
    data = with_orientation(coffee(64, 64), orientation, kind)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert difference(decode(data, SQUASH), upright) < 1


def test_a_big_endian_tiff_with_an_orientation_is_upright() -> None:
    data = with_orientation(coffee(64, 64), 3, "TIFF", compression="tiff_lzw")
    assert difference(decode(data, SQUASH), np.asarray(coffee(64, 64).rotate(180))) < 1


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return image.convert("L").point(lambda value: value * 256, "I").convert("I;16")
    return image.convert(mode)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")]
    + [("JPEG", mode) for mode in ("L", "CMYK", "YCbCr")]
    + [("TIFF", mode) for mode in ("1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "I;16")],
)
def test_every_mode_that_a_format_stores_is_read(kind: str, mode: str) -> None:
    image = in_mode(coffee(64, 64), mode)
    expected = coffee(64, 64).convert("L") if mode == "I;16" else image
    assert difference(decode(encode(image, kind), SQUASH), np.asarray(expected.convert("RGB"))) < 8


def test_sixteen_bit_grey_keeps_its_high_byte() -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = decode(encode(Image.fromarray(values), "PNG"), SQUASH)
    assert (pixels[..., 0] == values >> 8).all()


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 128), (0, 0, 32, 64))
    pixels = decode(encode(image, "PNG"), SQUASH)
    assert pixels[0, 63].tolist() == [255, 255, 255]
    assert pixels[0, 0].tolist() == [127, 127, 255]


def test_a_palette_with_transparency_is_laid_over_white() -> None:
    image = coffee(64, 64).quantize(16)
    data = encode(image, "GIF", transparency=image.getpixel((0, 0)))
    assert decode(data, SQUASH)[0, 0].tolist() == [255, 255, 255]


def test_a_progressive_jpeg_is_the_same_picture() -> None:
    plain, progressive = (encode(coffee(), quality=90, progressive=p) for p in (False, True))
    assert (decode(plain, SQUASH) == decode(progressive, SQUASH)).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = decode(data, SQUASH)[32, 32]
    assert red > 240
    assert max(green, blue) < 15


def test_a_large_jpeg_is_decoded_at_a_fraction_and_is_still_the_same_picture() -> None:
    large = photo("retina").resize((1600, 1200))
    data = encode(large, quality=95)
    whole = decode(data, Preprocessing(224, 224, "squash", (0, 0, 0), (1, 1, 1), jpeg_margin=1e9))
    scaled = decode(data, Preprocessing(224, 224, "squash", (0, 0, 0), (1, 1, 1)))
    assert 0 < difference(whole, scaled) < 1


def test_a_large_cmyk_jpeg_is_the_same_picture_as_its_colour_twin() -> None:
    large = photo("retina").resize((1600, 1200))
    cmyk, colour = encode(large.convert("CMYK"), quality=95), encode(large, quality=95)
    assert difference(decode(cmyk, SQUASH), decode(colour, SQUASH)) < 3


def test_squash_keeps_the_edges_that_crop_leaves_out() -> None:
    image = Image.new("RGB", (300, 100), "white")
    image.paste("black", (0, 0, 90, 100))
    data = encode(image, "PNG")
    assert decode(data, SQUASH)[32, 0].max() == 0
    assert decode(data, CROP).min() == 255


def test_crop_takes_the_same_part_as_torchvision() -> None:
    from torchvision.transforms.v2 import functional as TF

    preprocessing = Preprocessing(224, 224, "crop", (0, 0, 0), (1, 1, 1), crop=224 / 256)
    image = photo("coffee")
    theirs = TF.center_crop(TF.resize(image, 256), 224)
    assert difference(decode(encode(image, "PNG"), preprocessing), np.asarray(theirs)) < 1


def test_decoded_pixels_and_the_file_give_the_same() -> None:
    image = coffee(333, 222)
    assert (fit(np.asarray(image), CROP) == decode(encode(image, "PNG"), CROP)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 65500), (65500, 1), (2, 3)])
@pytest.mark.parametrize("preprocessing", [SQUASH, CROP])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_thinnest_images_are_read(size: tuple[int, int], preprocessing: Preprocessing, kind: str) -> None:
    pixels = decode(encode(Image.new("RGB", size, "white"), kind), preprocessing)
    assert pixels.shape == (64, 64, 3)
    assert pixels.min() > 250


def test_threads_get_what_one_thread_gets() -> None:
    files = [path.read_bytes() for path in photo_paths().values()]
    alone = [decode(data, SQUASH) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data, SQUASH), files * 2))
    assert all((a == b).all() for a, b in zip(alone * 2, together, strict=True))


# Faults


def test_an_empty_file_is_missing() -> None:
    with pytest.raises(ImageMissing):
        decode(b"", SQUASH)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"hello, this is text\n", "no known image format"),
        (b"<html></html>", "no known image format"),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC"),
        (b"%PDF-1.7", "PDF"),
        (b"\xff\xd8", "no known image format"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, told: str) -> None:
    with pytest.raises(ImageFormatUnsupported, match=told):
        sniff(data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_a_jpeg_that_was_cut_is_truncated_and_never_half_grey(
    share: float, options: dict[str, object]
) -> None:
    data = encode(photo("coffee"), **options)
    with pytest.raises(ImageTruncated):
        decode(data[: int(len(data) * share)], SQUASH)


def test_a_cmyk_jpeg_that_was_cut_is_truncated() -> None:
    data = encode(photo("coffee").convert("CMYK"))
    with pytest.raises(ImageTruncated):
        decode(data[: len(data) // 2], SQUASH)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.4, 0.95])
def test_a_file_that_was_cut_is_truncated_or_corrupt(kind: str, share: float) -> None:
    data = encode(photo("coffee"), kind)
    with pytest.raises((ImageTruncated, ImageCorrupt)):
        decode(data[: int(len(data) * share)], SQUASH)


def test_bytes_that_a_camera_left_between_segments_do_no_harm() -> None:
    data = encode(coffee())
    dirty = data[:-2] + b"\0\0\0" + data[-2:]
    assert difference(decode(dirty, SQUASH), decode(data, SQUASH)) < 1
    with pytest.raises(ImageTruncated):
        decode(dirty[:-2], SQUASH)


def test_a_file_over_the_limit_of_bytes_is_refused() -> None:
    with pytest.raises(ImageTooLarge, match="at most 100"):
        sniff(encode(coffee()), ImageLimits(max_bytes=100))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_over_the_limit_of_pixels_is_refused(kind: str) -> None:
    with pytest.raises(PixelLimit, match="150 x 100"):
        decode(encode(coffee(), kind), SQUASH, ImageLimits(max_pixels=14_999))


def test_a_gif_whose_frame_is_larger_than_its_screen_is_refused() -> None:
    data = bytearray(encode(coffee(), "GIF"))
    data[6:10] = struct.pack("<HH", 4, 4)
    with pytest.raises(PixelLimit):
        decode(bytes(data), SQUASH, ImageLimits(max_pixels=1000))


def quickest(action: Callable[[], object]) -> float:
    """CPU seconds of the fastest of five times."""
    times = []
    for _ in range(5):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return min(times)


def refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        decode(data, SQUASH)


def test_bombs_are_refused_faster_than_a_photo_is_read() -> None:
    usual = quickest(lambda: decode(encode(photo("coffee"), "PNG"), SQUASH))
    bomb = png(60_000, 60_000, chunk(b"IDAT", zlib.compress(b"\0" * 1000)))
    assert quickest(lambda: refused(bomb, PixelLimit)) < usual
    half = encode(photo("coffee"))[:5000]
    assert quickest(lambda: refused(half, ImageTruncated)) < usual


def test_text_in_a_png_is_not_unpacked() -> None:
    packed = zlib.compress(b"A" * 1_000_000)
    bomb = chunk(b"zTXt", b"Comment\0\0" + packed)
    pixels = chunk(b"IDAT", zlib.compress(b"\0\xff\xff\xff"))
    data = png(1, 1, *[bomb] * 500, pixels, *[bomb] * 500)
    assert decode(data, SQUASH).min() == 255
    unpacking = 1000 * quickest(lambda: zlib.decompress(packed))
    assert quickest(lambda: decode(data, SQUASH)) < unpacking / 2


def test_of_ten_thousand_frames_only_the_first_is_read() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    few = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    second = few[few.rindex(b"\x21\xf9") : -1]
    many = few[:-1] + second * 10_000 + b";"
    red, _, blue = decode(many, SQUASH)[0, 0]
    assert red > blue
    assert quickest(lambda: decode(many, SQUASH)) < 100 * quickest(lambda: decode(few, SQUASH))


def test_a_tiff_whose_tag_claims_gigabytes_is_refused() -> None:
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (273, 4, 500_000_000, 8)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    data = b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + b"\0\0\0\0"
    with pytest.raises(ImageCorrupt, match="273"):
        decode(data, SQUASH)


@pytest.mark.parametrize("values", [np.zeros((8, 8), np.int32), np.zeros((8, 8), np.float32)])
def test_samples_without_an_agreed_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ImageFormatUnsupported, match="agreed range"):
        decode(encode(Image.fromarray(values), "TIFF"), SQUASH)


def test_a_lossy_twelve_bit_jpeg_is_named() -> None:
    data = bytearray(encode(coffee()))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(ImageFormatUnsupported, match="12 bits"):
        sniff(bytes(data))


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_pixels_of_another_kind_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ImageCorrupt, match="uint8"):
        fit(pixels, SQUASH)


@pytest.mark.parametrize(
    "change", [{"resize": "stretch"}, {"height": 0}, {"crop": 0.0}, {"std": (0.0, 1.0, 1.0)}]
)
def test_an_impossible_preprocessing_is_refused(change: dict[str, object]) -> None:
    values: dict[str, object] = {
        "height": 8,
        "width": 8,
        "resize": "crop",
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
    }
    with pytest.raises(RecipeInvalid):
        Preprocessing(**values | change)  # type: ignore[arg-type]


def decoded_or_refused(data: bytes) -> None:
    # Warnings are errors here: one that a decoder raises would come back as the cause of an ImageError.
    try:
        pixels = decode(data, SQUASH, ImageLimits(max_pixels=1_000_000))
    except ImageError as error:
        refusal = error
    else:
        assert pixels.shape == (64, 64, 3)
        return
    assert str(refusal)
    assert not isinstance(refusal.__cause__, Warning)


SEEDS = [encode(coffee(30, 20), kind) for kind in FORMATS] + [
    encode(coffee(30, 20), progressive=True),
    with_orientation(coffee(30, 20), 6),
    with_orientation(coffee(30, 20), 6, "PNG"),
    with_orientation(coffee(30, 20), 6, "WEBP"),
    with_orientation(coffee(30, 20), 6, "TIFF", compression="tiff_adobe_deflate"),
    encode(coffee(30, 20).convert("CMYK")),
    encode(coffee(30, 20), "TIFF", compression="jpeg"),
    encode(coffee(30, 20), "TIFF", big_tiff=True),
    encode(coffee(30, 20).quantize(8), "PNG"),
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
    st.booleans(),
)
def test_no_damage_to_a_file_ends_in_another_exception(
    seed: bytes, changes: list[tuple[float, int]], cut: float, whole: bool
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        # Most of what can go wrong is in the first bytes.
        data[int(place**3 * (len(data) - 1))] = value
    decoded_or_refused(bytes(data) if whole else bytes(data[: int(cut * len(data))]))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([seed[:14] for seed in SEEDS]), st.binary(max_size=300))
def test_no_bytes_after_a_magic_end_in_another_exception(start: bytes, rest: bytes) -> None:
    decoded_or_refused(start + rest)
