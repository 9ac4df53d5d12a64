"""Node names: the documented convention, and torchvision's reading of it."""

from __future__ import annotations

import re
import time
from functools import partial

import lookalike_extractor
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from lookalike_extractor import NodeNameWarning, get_graph_node_names
from lookalike_extractor.naming import Label, exact_names, torchvision_names
from torch import Tensor, nn
from torchvision.models import feature_extraction

create_feature_extractor = partial(lookalike_extractor.create_feature_extractor, verify=False)
MODELS = [  # one of each family that torchvision can trace
    "alexnet",
    "convnext_tiny",
    "deeplabv3_mobilenet_v3_large",
    "densenet121",
    "efficientnet_v2_s",
    "fcn_resnet50",
    "googlenet",
    "lraspp_mobilenet_v3_large",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "quantized_googlenet",
    "quantized_mobilenet_v3_large",
    "quantized_resnet50",
    "quantized_shufflenet_v2_x0_5",
    "r2plus1d_18",
    "resnet18",
    "s3d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin3d_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_16",
    "vit_b_32",
    "vit_h_14",
    "vit_l_16",
    "vit_l_32",
]


def architecture(name: str) -> nn.Module:
    options: dict[str, object] = {"init_weights": False} if name.endswith("googlenet") else {}
    if name.startswith(("deeplab", "fcn", "lraspp")):
        options["weights_backbone"] = None
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **options)


def has_names_that_end_in_digits(model: nn.Module) -> bool:
    return any(re.search(r"_\d+(\.|$)", path) for path, _ in model.named_modules())


@pytest.mark.filterwarnings("ignore:.*nodes")
@pytest.mark.parametrize("name", MODELS)
def test_the_torchvision_reading_is_torchvisions_own_list(name: str) -> None:
    model = architecture(name)
    theirs = feature_extraction.get_graph_node_names(model)
    assert get_graph_node_names(model, names="torchvision") == theirs


@pytest.mark.filterwarnings("ignore:.*nodes")
@pytest.mark.parametrize("name", MODELS)
def test_exact_names_differ_only_where_module_names_end_in_digits(name: str) -> None:
    model = architecture(name)
    differs = get_graph_node_names(model) != get_graph_node_names(model, names="torchvision")
    assert differs == name.startswith("vit_")
    assert not differs or has_names_that_end_in_digits(model)


def test_every_leaf_module_of_a_vision_transformer_keeps_its_path() -> None:
    model = architecture("vit_b_32")
    names = get_graph_node_names(model)[1]
    assert {f"encoder.layers.encoder_layer_3.ln_{number}" for number in (1, 2)} <= set(names)


def test_a_name_that_means_another_node_to_torchvision_warns() -> None:
    model = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16)
    with pytest.warns(
        NodeNameWarning, match="'encoder.layers.encoder_layer_0.ln_2' with names='torchvision'"
    ):
        extractor = create_feature_extractor(model, ["encoder.layers.encoder_layer_0.ln_1"])
    with pytest.warns(NodeNameWarning):
        theirs = create_feature_extractor(
            model, {"encoder.layers.encoder_layer_0.ln_1": "out"}, names="torchvision"
        )
    reference = feature_extraction.create_feature_extractor(
        model, {"encoder.layers.encoder_layer_0.ln_1": "out"}
    )
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(theirs(image)["out"], reference(image)["out"])
    assert not torch.equal(extractor(image)["encoder.layers.encoder_layer_0.ln_1"], reference(image)["out"])


def test_a_module_called_twice_is_counted_and_another_of_that_name_keeps_its_own() -> None:
    labels = [Label("relu"), Label("relu"), Label("relu_1"), Label("", "relu")]
    assert exact_names(labels, {"relu", "relu_1"}) == ["relu", "relu_2", "relu_1", "relu_3"]


parts = st.sampled_from(["a", "b", "a_1", "a_2", "b_1_2", "layer"])
labels = st.builds(Label, st.lists(parts, max_size=2).map(".".join), parts | st.just(""))


@given(st.lists(labels, max_size=30))
def test_names_are_unique_and_start_with_the_path(labels: list[Label]) -> None:
    names = exact_names(labels, {label.scope for label in labels})
    assert len(set(names)) == len(names)
    assert all(name.startswith(label.path) for name, label in zip(names, labels, strict=True))


class _Reference(feature_extraction.NodePathTracer):
    """Torchvision's naming, fed with names instead of nodes."""

    def name(self, index: int, path: str) -> str:
        class Node:
            op = "call_module"

        given = self._get_node_qualname(path, Node())
        self.node_to_qualname[index] = given
        return given


@given(st.lists(st.lists(parts, min_size=1, max_size=2).map(".".join), max_size=30))
def test_the_torchvision_reading_counts_as_torchvision_does(paths: list[str]) -> None:
    reference = _Reference()
    expected = [reference.name(index, path) for index, path in enumerate(paths)]
    assert torchvision_names([Label(path) for path in paths]) == expected


class Deep(nn.Module):
    """A hundred leaf modules, and a bare parameter, in each block."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Sequential(*(nn.ReLU() for _ in range(100))) for _ in range(blocks)))
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for block, scale in zip(self.blocks, self.scales, strict=True):
            x = block(x) * scale
        return x


def seconds_to_list(blocks: int) -> float:
    model = Deep(blocks)
    started = time.process_time()
    names = get_graph_node_names(model)[1]
    assert len(names) == 1 + 102 * blocks
    return time.process_time() - started


def test_ten_times_the_leaves_take_far_less_than_a_hundred_times_as_long() -> None:
    few = min(seconds_to_list(5) for _ in range(3))
    assert seconds_to_list(50) < 40 * few


@pytest.mark.filterwarnings("ignore:.*nodes")
def test_models_that_differ_between_modes_warn_once() -> None:
    model = architecture("googlenet")
    with pytest.warns(UserWarning, match="eval mode are a subsequence of those of train mode"):
        get_graph_node_names(model)
