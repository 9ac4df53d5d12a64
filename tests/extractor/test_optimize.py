from __future__ import annotations

import dataclasses
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lookalike_extractor.agreement import least_cosines
from lookalike_extractor.errors import CheckpointMismatch, RequestInvalid, VerificationFailed
from lookalike_extractor.extraction import create_feature_extractor
from lookalike_extractor.extractor import FeatureExtractor
from lookalike_extractor.heads import Head, add_heads, example_images
from lookalike_extractor.optimization import Bf16, has_bf16, optimize
from lookalike_extractor.pooling import join, pool
from lookalike_extractor.preprocessing import Preprocessing
from lookalike_extractor.recipe import Tap
from lookalike_extractor.spec import ExtractorSpec, load_spec
from torch import Tensor, nn

IMAGES = example_images(16, 16, 3)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 8, 3)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(self.conv(x)).relu())
        return y.relu()


def extractor() -> FeatureExtractor:
    made = create_feature_extractor(Tiny().eval(), {"relu": "early", "relu_1": "late"}, example_inputs=IMAGES)
    assert isinstance(made, FeatureExtractor)
    return made


def described() -> nn.Module:
    heads = {"one": Head((Tap("late"),)), "both": Head((Tap("early", "max"), Tap("late", "avg")))}
    return add_heads(extractor(), heads)


# Heads


def test_heads_pool_and_join_what_the_extractor_yields() -> None:
    maps, rows = extractor()(IMAGES), described()(IMAGES)
    assert torch.equal(rows["one"], join([pool(maps["late"], "gem", 3.0)]))
    assert torch.equal(rows["both"], join([pool(maps["early"], "max", 3.0), pool(maps["late"], "avg", 3.0)]))


def test_a_projection_is_part_of_the_graph_and_is_trained() -> None:
    projection = nn.Linear(8, 2)
    module = add_heads(extractor(), {"p": Head((Tap("late"),), projection)})
    rows = module(IMAGES)["p"]
    rows.sum().backward()
    assert torch.allclose(rows.norm(dim=1), torch.ones(3))
    assert projection.weight.grad is not None
    assert sum(p is projection.weight for p in module.parameters()) == 1


def test_heads_keep_only_what_they_need() -> None:
    module = add_heads(extractor(), {"e": Head((Tap("early"),))})
    assert not any(name.startswith("last") for name, _ in module.named_parameters())


@pytest.mark.parametrize(
    ("heads", "told"), [({}, "at least one"), ({"h": Head((Tap("lat"),))}, "Did you mean 'late'")]
)
def test_heads_that_cannot_be_are_refused(heads: dict[str, Head], told: str) -> None:
    with pytest.raises(RequestInvalid, match=told):
        add_heads(extractor(), heads)


# Optimising


def test_every_step_is_reported_with_its_error_per_key() -> None:
    done = optimize(described(), IMAGES)
    assert [(step.name, step.kept) for step in done.steps] == [
        ("fold batch norm", True),
        ("channels_last", True),
    ]
    assert all(step.errors.keys() == {"one", "both"} for step in done.steps)
    assert "one: cosine 1.000000" in str(done)
    assert (done.runtime, done.precision, min(done.cosines.values()) > 0.99999) == ("eager", "fp32", True)
    assert min(least_cosines(described()(IMAGES), done.module(IMAGES)).values()) > 0.99999


def test_the_extractor_is_left_as_it_was() -> None:
    source = extractor()
    before = {key: value.clone() for key, value in source.state_dict().items()}
    optimize(source, IMAGES)
    after = source.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert isinstance(source.get_submodule("norm"), nn.BatchNorm2d)


def test_a_step_that_goes_too_far_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike_extractor.optimization.fold_batch_norm", lambda module: Noisy(module))
    done = optimize(extractor(), IMAGES)
    assert not done.steps[0].kept
    assert "under 0.99999" in str(done.steps[0])
    assert min(least_cosines(extractor()(IMAGES), done.module(IMAGES)).values()) > 0.99999


class Noisy(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {key: value + torch.randn_like(value) for key, value in self.module(x).items()}


def test_bf16_is_used_only_where_the_device_has_it() -> None:
    done = optimize(extractor(), IMAGES, precision="bf16")
    step = done.steps[-1]
    assert step.kept == has_bf16(torch.device("cpu"))
    assert (done.precision == "bf16") == step.kept
    assert step.kept or "bfloat16" in step.reason


def test_bf16_takes_and_yields_float32() -> None:
    outputs = Bf16(extractor().bfloat16())(IMAGES)
    assert {value.dtype for value in outputs.values()} == {torch.float32}
    assert min(least_cosines(extractor()(IMAGES), outputs).values()) > 0.999


def test_nan_is_never_near() -> None:
    one = {"a": torch.ones(2, 3)}
    assert least_cosines(one, {"a": torch.tensor([[1.0, 1, 1], [float("nan")] * 3])}) == {"a": 0.0}
    assert least_cosines({"a": torch.zeros(1, 3)}, {"a": torch.zeros(1, 3)}) == {"a": 1.0}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"precision": "int4"}, "'int4'"),
        ({"runtime": "tpu"}, "eager, compile, aot"),
        ({"precision": "int8"}, "eager does not run int8; use openvino"),
        ({"precision": "bf16", "runtime": "onnx"}, "onnx does not run bf16; use eager or compile"),
        ({"runtime": "openvino", "for_device": "cuda"}, "runs on the CPU"),
    ],
)
def test_what_cannot_be_optimised_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestInvalid, match=told):
        optimize(extractor(), IMAGES, **options)


def test_an_extractor_in_train_mode_is_refused() -> None:
    with pytest.raises(RequestInvalid, match="eval"):
        optimize(extractor().train(), IMAGES)


# Specs


@cache
def spec() -> ExtractorSpec:
    nodes = {"blocks.0.depthwise": "early", "blocks.2": "late"}
    return ExtractorSpec("efficientnet_lite0", nodes, {"d": (Tap("early"), Tap("late", "max"))}).completed()


def test_a_spec_comes_back_from_its_json() -> None:
    assert ExtractorSpec.from_json(spec().to_json()) == spec()


def test_a_spec_is_built_in_a_fresh_process_into_the_same_descriptors(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(spec().to_json())
    code = (
        "import sys, torch; from pathlib import Path; from lookalike_extractor.spec import ExtractorSpec;"
        "from lookalike_extractor.heads import example_images;"
        "module = ExtractorSpec.from_json(Path(sys.argv[1]).read_text()).build();"
        "torch.save(module(example_images(64, 64))['d'].detach(), sys.argv[2])"
    )
    paths = [str(tmp_path / "spec.json"), str(tmp_path / "out.pt")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, timeout=240)
    there = torch.load(paths[1], weights_only=True)
    assert torch.allclose(there, spec().build()(example_images(64, 64))["d"], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"weights_digest": "0" * 64}, CheckpointMismatch),
        ({"graph": "0" * 64}, VerificationFailed),
        ({"probe": {"d": (0.5,) * 8}}, VerificationFailed),
    ],
)
def test_a_spec_whose_proofs_fail_is_refused(change: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        dataclasses.replace(spec(), **change).build()  # type: ignore[arg-type]


PREPROCESSING = Preprocessing(16, 16, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Scaled(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(self.conv(x)).relu() * 1.5)
        return y.relu()


def own_spec() -> ExtractorSpec:
    return ExtractorSpec("mine", {"relu": "early", "relu_1": "late"}, preprocessing=PREPROCESSING)


def test_a_spec_of_ones_own_model_is_built_from_that_model_again(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(own_spec().completed(Tiny().eval()).to_json())
    built = load_spec(path, Tiny().eval())(IMAGES)
    assert all(torch.equal(value, built[key]) for key, value in extractor()(IMAGES).items())


def test_a_spec_refuses_a_model_of_other_weights_or_another_graph() -> None:
    spec = own_spec().completed(Tiny().eval())
    other = Tiny().eval()
    nn.init.ones_(other.conv.weight)
    with pytest.raises(CheckpointMismatch, match="weights of mine"):
        spec.build(other)
    with pytest.raises(VerificationFailed, match="graph of mine"):
        spec.build(Scaled().eval())


def test_a_spec_of_ones_own_model_needs_its_preprocessing() -> None:
    with pytest.raises(RequestInvalid, match="preprocessing of 'mine'"):
        dataclasses.replace(own_spec(), preprocessing=None).build(Tiny())


def test_a_spec_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestInvalid, match="cannot be read"):
        load_spec(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "colour": "red"}'])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid, match="spec"):
        ExtractorSpec.from_json(text)
