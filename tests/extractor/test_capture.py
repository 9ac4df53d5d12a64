"""The chain of captures: which one is used, why not those before, and that all are right or refuse."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hooked import hooked, same
from lookalike_extractor import (
    FeatureExtractor,
    HookedExtractor,
    NotVerifiedWarning,
    create_feature_extractor,
    get_graph_node_names,
    select_nodes,
)
from lookalike_extractor.errors import NodeUnknown, RequestInvalid, VerificationFailed
from torch import Tensor, nn

IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def images(count: int, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


class Looping(nn.Module):
    """Loops over a size, unpacks a shape, adds in place, drops out in training: no proxy can."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.register_buffer("shift", torch.arange(3.0).view(3, 1, 1))
        self.cache: dict[str, Any] = {}

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, channels, height, width = x.shape
        for _ in range(height // 8):
            x = x + self.act(self.conv(x))
        x += self.shift
        x[:, 0] = 0
        if mask is not None:
            x = x * mask
        self.cache["last"] = x
        tokens = F.dropout(x * self.scale, 0.5, self.training).reshape(batch, channels, height * width)
        left, right = tokens.transpose(1, 2).chunk(2, dim=1)
        return torch.cat([left, right * 2], dim=1) - torch.zeros(batch, 1, 1, device=x.device)


def test_a_model_that_loops_over_sizes_is_recorded() -> None:
    model = Looping().eval()
    extractor = create_feature_extractor(model, ["conv", "act_1", "add_1", "sub"], example_inputs=IMAGE)
    assert isinstance(extractor, FeatureExtractor)
    assert extractor.capture.used == "recorded"
    for count in (1, 2, 3):
        out, batch = extractor(images(count)), images(count)
        truth = hooked(model, batch)
        assert same([out["conv"], out["act_1"]], [truth["conv"], truth["act_1"]])
        assert torch.equal(out["sub"], model(batch))
    assert model.cache != {}  # of the calls above; what is recorded leaves nothing behind


def test_recording_leaves_no_fake_tensors_behind() -> None:
    model = Looping().eval()
    get_graph_node_names(model, example_inputs=IMAGE)
    assert model.cache == {}


class Padding(nn.Module):
    """Pads by what the size asks for, as models do that were made for TensorFlow, and enlarges."""

    def forward(self, x: Tensor) -> Tensor:
        missing = -x.shape[-1] % 5 if x.shape[-1] > 1 else 0
        x = F.pad(F.pad(x, (0, missing, missing, 0), value=2.0), (1, 1, 1, 1), mode="reflect")
        return F.interpolate(x, scale_factor=2, mode="bilinear")


def test_padding_and_resizing_do_not_fix_the_batch_size() -> None:
    names = ["pad", "pad_1", "interpolate"]
    extractor = create_feature_extractor(Padding().eval(), names, example_inputs=IMAGE)
    assert (extractor.capture.used, extractor.verification.refused) == ("recorded", {})
    assert torch.equal(extractor(images(5))["interpolate"], Padding()(images(5)))


class Pairing(nn.Module):
    """Looks at pairs of images as one batch, and parts them again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        if left.shape[1:] != right.shape[1:]:
            raise ValueError("images of a pair must be alike")
        one, other = self.conv(torch.cat([left, right])).chunk(2)
        return one - other


def test_two_inputs_may_be_joined_along_the_batch() -> None:
    model = Pairing().eval()
    extractor = create_feature_extractor(model, ["sub"], example_inputs=(IMAGE, IMAGE + 1))
    assert extractor.capture.used == "recorded"
    assert extractor.verification.batch_sizes == (1, 3)
    assert torch.equal(extractor(images(2), images(2) * 2)["sub"], model(images(2), images(2) * 2))
    with pytest.raises(RequestInvalid, match="as many right as left"):
        extractor(images(2), images(3))


def test_another_size_than_the_recorded_one_is_refused() -> None:
    extractor = create_feature_extractor(Looping().eval(), ["sub"], example_inputs=IMAGE)
    with pytest.raises(RequestInvalid, match=r"shape \[2, 3, 32, 32\].*\[n, 3, 16, 16\]"):
        extractor(images(2, 32))


def test_a_recorded_extractor_trains_as_its_model_does() -> None:
    model = Looping().train()
    extractor = create_feature_extractor(model, ["sub"], example_inputs=IMAGE)
    gradients = []
    for module in (extractor, model):
        model.zero_grad()
        torch.manual_seed(3)
        out = module(images(2))
        (out["sub"] if isinstance(out, dict) else out).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_a_recorded_extractor_survives_copying() -> None:
    extractor = create_feature_extractor(Looping().eval(), ["sub"], example_inputs=IMAGE)
    for twin in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        assert same(twin(images(2)), extractor(images(2)))


class Baked(nn.Module):
    """Takes the batch for a number, and branches on it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if x.shape[0] > 4:
            y = y * 2
        return y.reshape(int(x.shape[0]), -1)


def test_a_baked_batch_size_is_kept_to_and_others_are_refused() -> None:
    model = Baked().eval()
    extractor = create_feature_extractor(model, ["conv", "reshape"], example_inputs=images(3))
    assert torch.equal(extractor(images(3))["reshape"], model(images(3)))
    assert list(extractor.verification.refused) == [5]
    with pytest.raises(RequestInvalid, match="batch size was not recorded"):
        extractor(images(2))


def test_a_guard_does_not_bind_what_runs_before_it() -> None:
    model = Baked().eval()
    extractor = create_feature_extractor(model, ["conv"], example_inputs=images(3))
    assert same(extractor(images(7)), {"conv": model.conv(images(7))})


class Deciding(nn.Module):
    """Branches on values: no graph can hold that."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.late = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.Conv2d(3, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        if x.sum() > 0:
            x = self.act(self.conv(x))
        return self.late(x)


def test_a_model_that_branches_on_values_is_hooked() -> None:
    model = Deciding().eval()
    extractor = create_feature_extractor(model, {"conv": "a", "act_1": "b"}, example_inputs=IMAGE)
    assert isinstance(extractor, HookedExtractor)
    truth = hooked(model, images(3))
    assert same(extractor(images(3)), {"a": truth["conv"], "b": truth["act_1"]})
    assert list(extractor.state_dict()) == list(model.state_dict())
    assert same(copy.deepcopy(extractor)(images(3)), extractor(images(3)))


def test_the_report_says_what_stopped_the_captures_before() -> None:
    report = create_feature_extractor(Deciding().eval(), ["conv"], example_inputs=IMAGE).capture
    assert (report.used, [rejection.capture for rejection in report.rejected][-1]) == ("hooks", "recorded")
    for rejection in report.rejected:
        assert rejection.file == __file__
        assert rejection.statement == "if x.sum() > 0:"
        assert str(rejection.line) in str(report)


def test_an_unknown_module_of_a_hooked_model_answers_with_the_nearest() -> None:
    with pytest.raises(NodeUnknown, match="Did you mean 'conv'"):
        create_feature_extractor(Deciding().eval(), ["comv"], example_inputs=IMAGE)


def test_an_optional_argument_is_not_taken_as_given() -> None:
    class Optional(nn.Module):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return x.exp() if mask is None else x * mask

    model = Optional().eval()
    extractor = create_feature_extractor(model, ["exp"], example_inputs=IMAGE)
    assert torch.equal(extractor(IMAGE)["exp"], model(IMAGE))
    masked = create_feature_extractor(model, ["mul"], example_inputs=(IMAGE, IMAGE))
    assert masked.capture.used == "symbolic"
    assert torch.equal(masked(IMAGE, IMAGE)["mul"], IMAGE * IMAGE)


def test_every_tap_has_a_figure_at_two_batch_sizes() -> None:
    extractor = create_feature_extractor(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), ["0", "1"], example_inputs=IMAGE
    )
    assert extractor.verification.batch_sizes == (1, 3)
    assert extractor.verification.differences == {"0": 0.0, "1": 0.0}


class Counting(nn.Module):
    """Behaves otherwise at each call, which a graph cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 1

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * torch.rand(1).item()


def test_an_extractor_that_disagrees_with_its_model_is_not_handed_out() -> None:
    with pytest.raises(VerificationFailed, match=r"Tap 'mul' differs from the model by .* at batch size 1"):
        create_feature_extractor(Counting(), ["mul"], example_inputs=IMAGE)
    assert create_feature_extractor(Counting(), ["mul"], verify=False).verification is None


def test_an_example_that_the_model_cannot_take_is_refused() -> None:
    with pytest.raises(RequestInvalid, match=r"does not run on \[\[1, 4, 8, 8\]\]"):
        create_feature_extractor(
            nn.Sequential(nn.Conv2d(3, 4, 1)), ["0"], example_inputs=torch.rand(1, 4, 8, 8)
        )


def test_without_a_fitting_example_a_warning_says_what_is_missing() -> None:
    with pytest.warns(NotVerifiedWarning, match="Give example_inputs"):
        create_feature_extractor(nn.Sequential(nn.Linear(7, 2)), ["0"])


def test_an_extractor_can_start_in_the_middle() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 1)).eval()
    head = create_feature_extractor(model, ["2"], input_node="1", example_inputs=IMAGE)
    assert torch.equal(head(model[:2](IMAGE))["2"], model(IMAGE))
    assert list(head.state_dict()) == ["2.weight", "2.bias"]
    assert head.verification.differences == {"2": 0.0}


def test_what_needs_more_than_the_input_node_is_refused() -> None:
    class Skip(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp() + x

    with pytest.raises(RequestInvalid, match="needs 'x' too"):
        create_feature_extractor(Skip(), ["add"], input_node="exp", example_inputs=IMAGE)


@pytest.fixture
def small() -> nn.Module:
    stages = [nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.ReLU()) for _ in range(3)]
    return nn.Sequential(*stages)


def test_nodes_are_selected_by_pattern_kind_and_stride(small: nn.Module) -> None:
    assert select_nodes(small, "1", "2.0", example_inputs=IMAGE) == ["1.1", "2.0"]
    assert select_nodes(small, "*.1", example_inputs=IMAGE) == ["0.1", "1.1", "2.1"]
    assert select_nodes(small, kind=nn.Conv2d, stride=4, example_inputs=IMAGE) == ["1.0"]


@pytest.mark.parametrize("wish", [{"kind": "Linear"}, {"stride": 5}])
def test_a_selector_that_fits_nothing_is_refused(small: nn.Module, wish: dict[str, Any]) -> None:
    with pytest.raises(NodeUnknown, match="No node fits"):
        select_nodes(small, example_inputs=IMAGE, **wish)
    with pytest.raises(NodeUnknown, match=r"No node fits '3\*'"):
        select_nodes(small, "3*", example_inputs=IMAGE)
