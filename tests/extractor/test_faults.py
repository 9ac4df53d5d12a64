"""Every class of fault known of torchvision's extractor: its own answer, and the right one."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import lookalike_extractor
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hooked import hooked, same
from lookalike_extractor import FeatureExtractor, get_graph_node_names
from lookalike_extractor.errors import CaptureFailed, NodeUnknown, RequestInvalid
from torch import Tensor, nn
from torchvision.models import feature_extraction as theirs

create_feature_extractor = partial(lookalike_extractor.create_feature_extractor, verify=False)
IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Statements(nn.Module):
    """A convolution, then `act` on its output, whose result is not used."""

    def __init__(self, act: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.side, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.act(y, self.side(x))
        return self.last(y)


def assign(y: Tensor, z: Tensor) -> None:
    y[:, 0] = 0


def augment(y: Tensor, z: Tensor) -> None:
    alias = y
    alias += z


STATEMENTS: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "x.add_(y)": (lambda y, z: y.add_(z), "wrong"),
    "F.relu(x, inplace=True)": (lambda y, z: F.relu(y, inplace=True), "wrong"),
    "F.relu(x, True)": (lambda y, z: F.relu(y, True), "wrong"),
    "torch.relu_(x)": (lambda y, z: torch.relu_(y), "wrong"),
    "torch.add(x, y, out=x)": (lambda y, z: torch.neg(z, out=y), "wrong"),
    "a view of x changes": (lambda y, z: y.view(-1)[3:9].mul_(5), "wrong"),
    "y = x; y += z": (augment, "wrong"),
    "x[:, 0] = 0": (assign, "refused"),
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_an_in_place_statement_whose_result_is_unused_survives(statement: str) -> None:
    act, reference = STATEMENTS[statement]
    model = Statements(act).eval().requires_grad_(False)
    truth = model(IMAGE)
    assert torch.equal(create_feature_extractor(model, ["last"])(IMAGE)["last"], truth)
    if reference == "refused":
        with pytest.raises(TypeError, match="item assignment"):
            theirs.create_feature_extractor(model, ["last"])
    else:
        assert not torch.equal(theirs.create_feature_extractor(model, ["last"])(IMAGE)["last"], truth)


def test_all_leaf_modules_of_a_resnet_tapped_together_are_what_hooks_see() -> None:
    model = torchvision.models.resnet18(num_classes=5).eval()
    names = [
        name for name in get_graph_node_names(model)[1] if "add" not in name and name not in {"x", "flatten"}
    ]
    truth = hooked(model, IMAGE)
    ours = create_feature_extractor(model, names)(IMAGE)
    corrupted = theirs.create_feature_extractor(model, names)(IMAGE)
    assert [name for name in names if not torch.equal(ours[name], truth[name])] == []
    assert len([name for name in names if not torch.equal(corrupted[name], truth[name])]) == 9


def test_only_what_a_later_operation_overwrites_is_copied() -> None:
    model = torchvision.models.resnet18(num_classes=5).eval()
    copies = create_feature_extractor(model, ["conv1", "bn1", "layer1.0.conv1", "layer1"]).code.count(
        "snapshot("
    )
    assert copies == 1  # of bn1, which relu overwrites


def test_a_copy_is_not_made_where_the_overwriting_operation_is_not_kept() -> None:
    model = torchvision.models.resnet18(num_classes=5).eval()
    assert "snapshot(" not in create_feature_extractor(model, ["bn1"]).code


def test_overlapping_requests_are_both_right() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh()), nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh())
    )
    model = nn.Sequential(model)
    truth = hooked(model, IMAGE)
    for request in (["0", "0.1"], ["0.1", "0"], ["0", "0.1", "0.1.1"]):
        ours = create_feature_extractor(model, request)(IMAGE)
        assert all(torch.equal(ours[name], truth[name]) for name in request)
        reference = theirs.create_feature_extractor(model, request)(IMAGE)
        assert not all(torch.equal(reference[name], truth[name]) for name in request)


def test_two_nodes_under_one_key_are_refused() -> None:
    model = torchvision.models.resnet18(num_classes=5).eval()
    request = {"layer3": "features", "layer4": "features"}
    assert list(theirs.create_feature_extractor(model, request)(IMAGE)) == ["features"]
    with pytest.raises(RequestInvalid, match="more than one node the key 'features'"):
        create_feature_extractor(model, request)


@pytest.mark.parametrize("name", [".*", "layer.", "conv(1", "layer[1-4]", "conv1|fc"])
def test_a_request_is_no_regular_expression(name: str) -> None:
    model = torchvision.models.resnet18(num_classes=5).eval()
    with contextlib.suppress(re.error, ValueError):
        assert theirs.create_feature_extractor(model, [name])(IMAGE) == {}
    with pytest.raises(NodeUnknown, match=re.escape(repr(name))):
        create_feature_extractor(model, [name])


class Pair(nn.Module):
    """Returns two tensors; its last operation is dead, and the one before no tensor."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x + 1, x * 2
        x.shape[0] - 1
        torch.sigmoid(x)
        return second, first


class Paired(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.single = Early()

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.pair(x)
        return self.single(left) + right


class Early(nn.Module):
    """Returns an early value, after which it computes a number."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.exp()
        y.shape[0] + 2
        return y


@pytest.mark.parametrize("name", ["pair", "single"])
def test_a_truncated_name_means_what_the_module_returns(name: str) -> None:
    model = Paired().eval()
    truth = hooked(model, IMAGE)[name]
    assert same(create_feature_extractor(model, [name])(IMAGE)[name], truth)
    wrong = theirs.create_feature_extractor(model, [name])(IMAGE)[name]
    assert type(wrong) is not type(truth)


def roundtrips() -> dict[str, Callable[[nn.Module], nn.Module]]:
    def saved(module: nn.Module) -> nn.Module:
        buffer = io.BytesIO()
        torch.save(module, buffer)
        buffer.seek(0)
        return torch.load(buffer, weights_only=False)

    return {
        "deepcopy": copy.deepcopy,
        "copy": copy.copy,
        "pickle": lambda module: pickle.loads(pickle.dumps(module)),
        "torch.save": saved,
    }


class Switch(nn.Module):
    """Another graph in each mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * 2 if self.training else self.conv(x) + 1


@pytest.mark.parametrize("way", roundtrips())
def test_a_copy_keeps_the_mode_the_switch_and_the_values(way: str) -> None:
    model = Switch().eval()
    request = {"train_return_nodes": {"mul": "out"}, "eval_return_nodes": {"add": "out"}}
    extractor = create_feature_extractor(model, **request, suppress_diff_warning=True)
    twin = roundtrips()[way](extractor)
    assert isinstance(twin, FeatureExtractor)
    assert not twin.training
    assert torch.equal(twin(IMAGE)["out"], extractor(IMAGE)["out"])
    assert torch.equal(twin.train()(IMAGE)["out"], model.train()(IMAGE))
    assert list(twin.state_dict()) == list(extractor.state_dict())
    assert twin.capture == extractor.capture


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_torchvisions_copy_of_an_eval_extractor_is_wrong(way: str) -> None:
    reference = theirs.create_feature_extractor(Switch().eval(), ["conv"], suppress_diff_warning=True)
    twin = roundtrips()[way](reference)
    assert twin.training or not isinstance(twin, theirs.DualGraphModule)


def test_an_averaged_copy_follows_the_extractor() -> None:
    extractor = create_feature_extractor(Switch().train(), ["conv"], suppress_diff_warning=True)
    averaged = torch.optim.swa_utils.AveragedModel(extractor)
    averaged.update_parameters(extractor)
    assert same(averaged(IMAGE), extractor(IMAGE))


class Frozen(nn.Module):
    """Keeps its normalisation in eval mode, and returns nothing from train()."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.bn.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


def test_a_train_that_returns_nothing_is_no_obstacle() -> None:
    model = Frozen()
    with pytest.raises(AssertionError, match="NoneType"):
        theirs.get_graph_node_names(model)
    assert get_graph_node_names(model)[1] == ["x", "conv", "bn"]


class Counting(nn.Module):
    """Counts its calls, caches by size, and raises when told to."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.register_buffer("calls", torch.zeros(1))
        self.cache: dict[str, Any] = {}
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.cache["last"] = x
        self.latest = x
        y = self.bn(self.conv(x))
        if self.fails and not self.training:
            raise ValueError("cannot do that")
        return y * torch.ones(1)


@pytest.mark.parametrize("fails", [False, True])
def test_the_users_model_is_left_untouched_also_when_capturing_fails(fails: bool) -> None:
    model = Counting(fails).train()
    model.bn.eval()
    before = copy.deepcopy(model.state_dict())
    attributes = {name: id(value) for name, value in model.__dict__.items()}
    options = {"leaf_modules": [Pair]}
    with pytest.raises(CaptureFailed, match="cannot do that") if fails else contextlib.nullcontext():
        create_feature_extractor(model, ["bn"], tracer_kwargs=options)
    assert [module.training for module in model.modules()] == [True, True, False]
    assert same(list(before.values()), list(model.state_dict().values()))
    assert {name: id(value) for name, value in model.__dict__.items()} == attributes
    assert model.cache == {}
    assert options == {"leaf_modules": [Pair]}


def test_torchvision_leaves_a_model_in_eval_mode_after_an_error() -> None:
    model = Counting(fails=True).train()
    with pytest.raises(ValueError, match="cannot do that"):
        theirs.create_feature_extractor(model, ["bn"])
    assert not model.training


def test_modules_that_are_frozen_stay_so_in_an_extractor() -> None:
    model = torchvision.models.resnet18(num_classes=5).train()
    model.bn1.eval()
    assert not create_feature_extractor(model, ["layer1"]).bn1.training
    assert theirs.create_feature_extractor(model, ["layer1"]).bn1.training


class Confusable(nn.Module):
    """`a_norm` beside `a.norm`: alike to a regular expression."""

    def __init__(self) -> None:
        super().__init__()
        self.a_norm = nn.Identity()
        self.a = nn.Sequential()
        self.a.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.a.norm(self.a_norm(x))


def test_modules_alike_to_a_regular_expression_are_told_apart() -> None:
    with pytest.raises(ValueError, match="int"):
        theirs.get_graph_node_names(Confusable())
    assert get_graph_node_names(Confusable())[1] == ["x", "a_norm", "a.norm"]


def test_a_request_may_be_a_tuple() -> None:
    model = Switch()
    with pytest.raises(AttributeError):
        theirs.create_feature_extractor(model, ("conv",), suppress_diff_warning=True)
    extractor = create_feature_extractor(model, ("conv",), suppress_diff_warning=True)
    assert list(extractor(IMAGE)) == ["conv"]


class Number(nn.Module):
    """Augments an integer, whose old value is used later."""

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2]
        more = size
        more += 1
        return x.sum() * size - more


def test_an_augmented_integer_leaves_its_old_value_alone() -> None:
    model = Number().eval()
    assert torch.equal(create_feature_extractor(model, ["sub"])(IMAGE)["sub"], model(IMAGE))
