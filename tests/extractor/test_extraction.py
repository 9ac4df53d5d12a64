"""create_feature_extractor: torchvision's contract, its example, and its refusals."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial

import lookalike_extractor
import pytest
import torch
import torchvision
from hooked import hooked
from lookalike_extractor import get_graph_node_names
from lookalike_extractor.errors import CaptureFailed, NodeUnknown, RequestInvalid
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
create_feature_extractor = partial(lookalike_extractor.create_feature_extractor, example_inputs=IMAGE)


class Small(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.body = nn.Conv2d(4, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


@pytest.fixture
def model() -> Small:
    return Small().eval()


def test_names_are_given_keys_in_the_order_of_execution(model: Small) -> None:
    out = create_feature_extractor(model, {"mean": "late", "stem": "early"})(IMAGE)
    assert list(out) == ["early", "late"]
    assert torch.equal(out["early"], hooked(model, IMAGE)["stem"])


def test_only_needed_parameters_are_kept_and_shared_under_their_names(model: Small) -> None:
    extractor = create_feature_extractor(model, ["stem.1"])
    kept = dict(extractor.named_parameters())
    assert list(kept) == ["stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"]
    assert all(kept[name] is dict(model.named_parameters())[name] for name in kept)
    assert set(extractor.state_dict()) <= set(model.state_dict())


def test_every_kept_parameter_gets_a_gradient(model: Small) -> None:
    extractor = create_feature_extractor(model.train(), ["stem.0", "body"])
    sum(value.square().mean() for value in extractor(IMAGE).values()).backward()
    assert all(parameter.grad is not None for parameter in extractor.parameters())


def test_the_mode_of_the_model_is_taken_over_and_switches_the_graph(model: Small) -> None:
    assert not create_feature_extractor(model, ["body"]).training
    extractor = create_feature_extractor(model.train(), ["body"])
    assert extractor.training
    assert extractor.eval().graph is extractor.eval_graph


def test_training_and_evaluating_take_turns(model: Small) -> None:
    extractor = create_feature_extractor(model, ["stem"])
    for training in (True, False, True):
        assert torch.equal(
            extractor.train(training)(IMAGE)["stem"], hooked(model.train(training), IMAGE)["stem"]
        )


def test_the_input_is_a_node(model: Small) -> None:
    assert torch.equal(create_feature_extractor(model, ["x", "body"])(IMAGE)["x"], IMAGE)


def test_a_module_that_only_passes_its_input_on_is_a_node_all_the_same() -> None:
    class Dropping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if self.training else x

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Dropping()).eval()
    extractor = create_feature_extractor(model, ["1"], suppress_diff_warning=True)
    assert torch.equal(extractor(IMAGE)["1"], model(IMAGE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Give either return_nodes"),
        ({"return_nodes": []}, "is empty"),
        ({"return_nodes": {}}, "is empty"),
        ({"return_nodes": "body"}, r"\['body'\]"),
        ({"return_nodes": ["body", "body"]}, "asks twice for node 'body'"),
        ({"return_nodes": ["body"], "names": "other"}, "'exact', 'torchvision'"),
        ({"train_return_nodes": ["body"]}, "Give both"),
        ({"return_nodes": ["a"], "train_return_nodes": ["a"], "eval_return_nodes": ["a"]}, "Give either"),
        ({"return_nodes": ["body"], "tracer_kwargs": {"leafs": []}}, "no 'leafs'"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    model: Small, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestInvalid, match=message):
        create_feature_extractor(model, **arguments)


def test_an_unknown_node_answers_with_the_nearest(model: Small) -> None:
    with pytest.raises(NodeUnknown, match=r"no node 'sten'.*Did you mean 'stem'"):
        create_feature_extractor(model, ["sten"])


def test_a_node_of_one_mode_only_is_said_to_be_so() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp() if self.training else x.sin()

    with pytest.raises(NodeUnknown, match=r"'exp' in the eval graph\. It is in the train graph only"):
        create_feature_extractor(Two(), ["exp"], suppress_diff_warning=True)


def test_a_name_of_the_other_reading_is_said_to_be_so() -> None:
    model = nn.Sequential(OrderedDict(conv_2=nn.Conv2d(3, 4, 1)))
    with pytest.raises(NodeUnknown, match="names='torchvision'"):
        create_feature_extractor(model, ["conv"])
    assert list(create_feature_extractor(model, ["conv"], names="torchvision")(IMAGE)) == ["conv"]


def test_what_cannot_be_captured_says_why_and_where() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("never works")

    with pytest.raises(CaptureFailed, match=r"(?s)never works.*test_extraction.py:\d+: raise"):
        get_graph_node_names(Branching())


def test_leaf_modules_and_functions_are_not_traced_through() -> None:
    class Stubborn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if bool(x.sum() > 0) else x

    model = nn.Sequential(Stubborn(), nn.ReLU())
    names = get_graph_node_names(model, tracer_kwargs={"leaf_modules": [Stubborn]})[0]
    assert names == ["input_1", "0", "1"] or names == ["input", "0", "1"]


def test_an_argument_can_be_fixed() -> None:
    class Choosing(nn.Module):
        def forward(self, x: Tensor, double: bool) -> Tensor:
            return x.mul(2) if double else x

    names = get_graph_node_names(Choosing(), concrete_args={"double": True})[0]
    assert "mul" in names


def test_other_threads_may_run_models_meanwhile(model: Small) -> None:
    other, failures = Small().eval(), []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                other(IMAGE)
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(20):
        get_graph_node_names(model)
    stop.set()
    thread.join()
    assert failures == []


def test_the_example_of_the_documentation_trains() -> None:
    torch.manual_seed(0)

    class ResNetWithFPN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            body = torchvision.models.resnet18(weights=None)
            self.body = create_feature_extractor(
                body, {f"layer{k}": str(v) for v, k in enumerate([1, 2, 3, 4])}
            )
            with torch.no_grad():
                channels = [out.shape[1] for out in self.body(torch.randn(2, 3, 64, 64)).values()]
            self.out_channels = 16
            self.fpn = FeaturePyramidNetwork(channels, self.out_channels, extra_blocks=LastLevelMaxPool())

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return self.fpn(self.body(x))

    model = MaskRCNN(ResNetWithFPN(), num_classes=2, min_size=64, max_size=64).train()
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[:, 10:40, 10:40] = 1
    target = {"boxes": torch.tensor([[10.0, 10.0, 40.0, 40.0]]), "labels": torch.tensor([1]), "masks": masks}
    losses = model([torch.rand(3, 64, 64)], [target])
    loss = sum(losses.values())
    assert torch.isfinite(loss)
    loss.backward()
    gradients = [parameter.grad for parameter in model.backbone.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
