"""A sample of torchvision's models: every leaf module tapped at once is what hooks see, at any batch size.

`benchmarks/extractor_sweep.py` does the same for all of them, and for other libraries' models.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hooked import hooked, same
from lookalike_extractor import create_feature_extractor, get_graph_node_names
from torch import nn
from torchvision import models
from torchvision.models.video.mvit import MSBlockConfig

MODELS: dict[str, Callable[[], nn.Module]] = {
    "densenet": partial(models.DenseNet, block_config=(2, 2), num_classes=5),
    "efficientnet_b0": partial(models.efficientnet_b0, weights=None),
    "googlenet": partial(models.googlenet, weights=None, init_weights=False),
    "mobilenet_v3_small": partial(models.mobilenet_v3_small, weights=None),
    "quantized_shufflenet": partial(models.quantization.shufflenet_v2_x0_5, weights=None),
    "regnet_y_400mf": partial(models.regnet_y_400mf, weights=None),
    "swin": partial(
        models.SwinTransformer, [4, 4], 16, [2, 2], [2, 2], [4, 4], stochastic_depth_prob=0, num_classes=5
    ),
    "vit": partial(models.VisionTransformer, 64, 16, 2, 2, 32, 64),
}


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def all_leaves(model: nn.Module, example: Any) -> nn.Module:
    """An extractor of every node that runs a module, captured on `example`."""
    names = get_graph_node_names(model, example_inputs=example, suppress_diff_warning=True)
    run = set(hooked(model, *(example if isinstance(example, tuple) else (example,))))
    train, evaluating = ([name for name in mode if name in run] for mode in names)
    extractor = create_feature_extractor(
        model,
        train_return_nodes=train,
        eval_return_nodes=evaluating,
        example_inputs=example,
        suppress_diff_warning=True,
        verify=False,
    )
    return extractor.eval()


def differing(model: nn.Module, extractor: nn.Module, *inputs: Any) -> list[str]:
    truth = hooked(model, *inputs)
    return [name for name, value in extractor(*inputs).items() if not same(value, truth[name])]


@pytest.mark.filterwarnings("ignore::lookalike_extractor.NodeNameWarning")
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_all_leaf_modules_tapped_at_batch_1_are_what_hooks_see_at_batch_3(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    extractor = all_leaves(model, images(1, 3, 64, 64))
    assert differing(model, extractor, images(1, 3, 64, 64)) == []
    assert differing(model, extractor, images(3, 3, 64, 64)) == []


@pytest.mark.parametrize("name", ["efficientnet_b0", "swin"])
@torch.no_grad()
def test_images_of_another_size_are_right_too(name: str) -> None:
    model = MODELS[name]().eval()
    extractor = all_leaves(model, images(1, 3, 64, 64))
    assert differing(model, extractor, images(2, 3, 96, 128)) == []


@torch.no_grad()
def test_videos_are_inputs_like_any_other() -> None:
    model = models.video.r3d_18(weights=None).eval()
    extractor = all_leaves(model, images(1, 3, 4, 32, 32))
    assert differing(model, extractor, images(3, 3, 4, 32, 32)) == []


@torch.no_grad()
def test_a_wrapped_function_that_overwrites_its_argument_is_not_dropped() -> None:
    blocks = [MSBlockConfig(1, 8, 8, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2])] * 2
    model = models.video.MViT(
        (32, 32), 4, blocks, True, residual_with_cls_embed=False, rel_pos_embed=True, proj_after_attn=True
    ).eval()
    video = images(1, 3, 4, 32, 32)
    assert differing(model, all_leaves(model, video), video) == []


@torch.no_grad()
def test_a_detector_takes_its_list_of_images() -> None:
    model = models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    extractor = all_leaves(model, ([images(3, 60, 80)],))
    assert extractor.capture.used == "hooks"
    assert differing(model, extractor, [images(3, 60, 80), images(3, 80, 60)]) == []
