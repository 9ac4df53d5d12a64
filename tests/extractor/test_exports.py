from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lookalike_extractor.agreement import LEAST_COSINE, least_cosines
from lookalike_extractor.conversion import export_graph
from lookalike_extractor.errors import CaptureFailed, RequestInvalid, VerificationFailed
from lookalike_extractor.exporting import export_aot, export_onnx, export_openvino
from lookalike_extractor.extraction import create_feature_extractor
from lookalike_extractor.heads import Head, add_heads, example_images
from lookalike_extractor.optimization import Optimized, Runtime, available_runtimes, optimize
from lookalike_extractor.recipe import Tap
from lookalike_extractor.runtimes import AotPackage, OnnxRuntime, OpenVino
from lookalike_extractor.stepwise import Change, Progress
from torch import Tensor, nn
from torchvision.models import VisionTransformer

IMAGES = example_images(16, 16, 3)
UNSEEN = example_images(16, 16, 8)[3:]

OTHER_SIZE = r"\[2, 3, 20, 20\]; this was made for torch.float32 \[n, 3, 16, 16\]"

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")


class Convolutions(nn.Module):
    """The tap before the batch norm may not be folded; the one before the ReLU is overwritten in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.last, self.last_norm, self.relu = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        for norm in (self.norm, self.last_norm):
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        y: Tensor = self.relu(self.last_norm(self.last(x)))
        return y


class Branches(nn.Module):
    """Decides and loops by sizes, which cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        n, c = x.shape[:2]
        while x.shape[-1] > 4:
            x = F.avg_pool2d(x, 2)
        return self.linear(x.flatten(2).transpose(1, 2)).reshape(n, -1, c)


MODELS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "cnn": (Convolutions, ["conv", "relu", "last_norm"]),
    "vit": (lambda: VisionTransformer(16, 8, 1, 2, 16, 32), ["encoder.layers.encoder_layer_0", "encoder.ln"]),
    "recorded": (Branches, ["relu", "linear"]),
}


@cache
def extractor(kind: str) -> nn.Module:
    torch.manual_seed(0)
    make, nodes = MODELS[kind]
    made = create_feature_extractor(make().eval(), {n: f"{n}/out" for n in nodes}, example_inputs=IMAGES)
    assert (made.capture.used == "recorded") == (kind == "recorded")
    return made.eval()


def agree(
    kind: str, module: Callable[[Tensor], dict[str, Tensor]], limit: float = LEAST_COSINE["fp32"]
) -> bool:
    """Whether the outputs have the extractor's names and values for one image and for five."""
    made = extractor(kind)
    with torch.no_grad():
        cosines = [least_cosines(made(images), module(images)) for images in (IMAGES[:1], UNSEEN)]
    return (
        list(cosines[0]) == [f"{n}/out" for n in MODELS[kind][1]]
        and min(cosine for batch in cosines for cosine in batch.values()) >= limit
    )


def optimized(kind: str, runtime: Runtime, **options: object) -> Optimized:
    missing = available_runtimes()[runtime]
    if missing:
        pytest.skip(missing)
    return optimize(extractor(kind), IMAGES, runtime=runtime, **options)  # type: ignore[arg-type]


# As modules


@pytest.mark.parametrize(("kind", "runtime"), [("vit", "onnx"), ("recorded", "onnx"), ("vit", "openvino")])
def test_another_runtime_keeps_names_and_values_at_any_batch(kind: str, runtime: Runtime) -> None:
    done = optimized(kind, runtime)
    assert agree(kind, done.module)
    assert (done.runtime, done.precision, done.steps[-1].name) == (runtime, "fp32", runtime)


@needs_compiler
def test_compiling_takes_the_whole_extractor_as_one_graph() -> None:
    torch.compiler.reset()
    assert agree("recorded", optimized("recorded", "compile").module)


def test_int8_is_used_where_it_is_near_enough_and_nobody_else_is_silenced() -> None:
    pytest.importorskip("nncf")
    shared, logger = logging.NullHandler(), logging.getLogger("nncf")
    logger.addHandler(shared)
    before = logger.level
    done = optimized("recorded", "openvino", precision="int8", calibration=UNSEEN)
    assert done.precision == "int8"
    assert agree("recorded", done.module, LEAST_COSINE["int8"])
    assert (shared.level, logger.level) == (logging.NOTSET, before)
    logger.removeHandler(shared)


def test_int8_that_is_too_far_off_is_taken_back_and_told() -> None:
    pytest.importorskip("nncf")
    done = optimized("cnn", "openvino", precision="int8", calibration=UNSEEN, least_cosine=1.0)
    assert (done.precision, done.steps[-1].kept) == ("fp32", False)
    assert "under 1.0" in str(done)
    assert agree("cnn", done.module)


# As files


def test_an_onnx_file_has_the_names_and_a_free_batch(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    described = add_heads(
        extractor("cnn"), {"one": Head((Tap("relu/out"),)), "two": Head((Tap("conv/out"),))}
    )
    errors = export_onnx(described, IMAGES, tmp_path / "m.onnx")
    assert min(error.cosine for error in errors.values()) > 0.99999
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
    assert [output.name for output in session.get_outputs()] == ["one", "two"]
    assert session.run(["two"], {"image": IMAGES[:1].numpy()})[0].shape == (1, 8)
    module = OnnxRuntime.load(tmp_path / "m.onnx", threads=1)
    assert module(UNSEEN)["one"].shape == (5, 8)
    with pytest.raises(RequestInvalid, match=OTHER_SIZE):
        module(example_images(20, 20))


def test_an_openvino_file_is_read_back(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    export_openvino(extractor("cnn"), IMAGES, tmp_path / "m.xml")
    module = OpenVino.load(tmp_path / "m.xml", threads=1)
    assert agree("cnn", module)
    with pytest.raises(RequestInvalid, match=OTHER_SIZE):
        module(example_images(20, 20))


@pytest.mark.parametrize("same", [True, False])
def test_an_image_has_the_same_bits_in_openvino_whatever_threads_compute_it(
    same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    export_openvino(extractor("cnn"), IMAGES, tmp_path / "m.xml")
    if not same:  # as where one thread computes otherwise than two
        monkeypatch.setattr(OpenVino, "_same", lambda _: False)
    module = OpenVino.load(tmp_path / "m.xml", threads=2)
    images = torch.cat([UNSEEN, IMAGES, UNSEEN.flip(3)])
    alone = [module(image[None]) for image in images]
    assert len(images) > 8
    for count in (2, 7, 8, len(images)):
        whole = module(images[:count])
        for key, values in whole.items():
            assert torch.equal(values, torch.cat([one[key] for one in alone[:count]]))


@needs_compiler
def test_a_package_that_was_compiled_ahead_is_read_back(tmp_path: Path) -> None:
    export_aot(extractor("recorded"), IMAGES, tmp_path / "m.pt2")
    module = AotPackage(tmp_path / "m.pt2")
    with torch.no_grad():
        cosines = least_cosines(extractor("recorded")(UNSEEN), module(UNSEEN))
    assert min(cosines.values()) > 0.99999
    with pytest.raises(RequestInvalid, match=OTHER_SIZE):
        module(example_images(20, 20))


# What cannot be


class FirstChannel(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": x[:, :1].expand_as(x)}


class Same(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": x}


def test_a_runtime_whose_values_are_off_is_refused() -> None:
    progress = Progress(Same(), IMAGES, LEAST_COSINE)
    with pytest.raises(VerificationFailed, match="broken in fp32: 'a' is at cosine"):
        progress.take(Change("broken", lambda _: FirstChannel(), required=True))


def test_int8_asks_for_images_to_calibrate_on() -> None:
    with pytest.raises(RequestInvalid, match="calibration images"):
        optimized("cnn", "openvino", precision="int8")


@pytest.mark.parametrize("package", ["openvino", "onnxruntime"])
def test_a_package_that_is_missing_is_named_with_its_line(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    runtime: Runtime = "openvino" if package == "openvino" else "onnx"
    if package == "onnxruntime":
        pytest.importorskip("onnxscript")
    with pytest.raises(RequestInvalid, match=rf"needs {package}; run: pip install .*{package}"):
        optimize(extractor("cnn"), IMAGES, runtime=runtime)


def test_openvino_tells_its_makers_nothing(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    code = (
        "import sys, torch\n"
        "from lookalike_extractor.runtimes import needed\n"
        "needed('openvino').convert_model(torch.nn.ReLU(), example_input=torch.ones(2, 3))\n"
        "sys.exit(sys.modules['openvino_telemetry'] is not None)"
    )
    home = {**os.environ, "HOME": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], env=home, timeout=120).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RequestInvalid, match="apt-get install g"):
        optimize(extractor("cnn"), IMAGES, runtime="aot")


def test_an_example_of_one_image_would_fix_the_batch() -> None:
    with pytest.raises(RequestInvalid, match="two images"):
        export_graph(extractor("cnn"), IMAGES[:1])


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": x + 1 if bool(x.sum() > 0) else x}


def test_a_module_that_decides_by_values_is_refused_with_the_reason() -> None:
    with pytest.raises(CaptureFailed, match=r"torch.export refuses the module: .*data-dependent"):
        export_graph(Undecided().eval(), IMAGES)
