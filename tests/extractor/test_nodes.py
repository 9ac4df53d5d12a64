"""The node table: shapes, strides, receptive fields and costs, without computing."""

from __future__ import annotations

import pytest
import torch
import torchvision
from lookalike_extractor import create_feature_extractor, describe_nodes
from lookalike_extractor.errors import RequestInvalid
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def table(name: str) -> dict[str, object]:
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    return {info.name: info for info in describe_nodes(model)}


def test_a_resnet_is_described_as_its_paper_has_it() -> None:
    nodes = table("resnet50")
    node = nodes["layer4.2.relu_2"]
    assert (node.operation, node.shape, node.dtype) == ("ReLU", (1, 2048, 7, 7), "float32")
    assert (node.stride, node.receptive_field) == (32, 427)
    assert sum(info.parameters for info in nodes.values()) == 25_557_032
    assert nodes["fc"].cumulative_flops == 2 * 4_089_184_256
    assert (nodes["fc"].stride, nodes["fc"].receptive_field) == (0, None)


def test_maps_with_channels_last_have_their_stride_too() -> None:
    nodes = table("swin_t")
    strides = [nodes[f"features.{stage}.0.norm1"].stride for stage in (1, 3, 5, 7)]
    assert strides == [4, 8, 16, 32]
    assert nodes["features.1.0.norm2"].receptive_field is None  # attention, then shifted windows


def test_the_cost_of_a_cut_is_the_cumulative_cost_of_its_node() -> None:
    model = torchvision.models.resnet18(num_classes=5).eval()
    image = torch.rand(1, 3, 32, 32)
    costs = {info.name: info.cumulative_flops for info in describe_nodes(model, image)}
    for name in ("conv1", "layer1.1.add", "layer2.0.downsample.1", "layer3.1.relu_1", "fc"):
        with FlopCounterMode(display=False) as counter:
            create_feature_extractor(model, [name], verify=False)(image)
        assert counter.get_total_flops() == costs[name]


class Gated(nn.Module):
    """Adds in place what a costly branch computes, and reads a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.side = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.main(x)
        y.add_(self.side(x))
        return y * self.scale


def test_what_acts_in_place_counts_towards_the_cost() -> None:
    nodes = {info.name: info for info in describe_nodes(Gated(), torch.rand(4, 3, 8, 8))}
    assert nodes["mul"].cumulative_flops == nodes["main"].flops + nodes["side"].flops
    assert nodes["side"].flops == 2 * 64 * 4 * 3 * 9
    assert nodes["scale"].parameters == 4
    assert nodes["mul"].shape == (1, 4, 8, 8)


def test_nothing_is_computed_and_nothing_changes() -> None:
    model = torchvision.models.resnet18(num_classes=5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    describe_nodes(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_input_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(RequestInvalid, match=r"ResNet does not run on \[\(1, 4, 8, 8\)\]"):
        describe_nodes(torchvision.models.resnet18(), torch.rand(2, 4, 8, 8))
