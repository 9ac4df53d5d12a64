"""Modules that another runtime runs, called as extractors are: float32 [n, 3, h, w] -> {key: float32}.

They are for inference on the CPU (a package of AOTInductor: on the device it was compiled for), cannot be
copied, and run one call at a time.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import RequestInvalid

AOT_SHAPE = "lookalike_input"
"""The key of an image's shape in a package, whose code checks nothing."""

_PIP = {
    "onnx": "onnx onnxscript onnxruntime",
    "onnxscript": "onnx onnxscript onnxruntime",
    "onnxruntime": "onnx onnxscript onnxruntime",
    "openvino": "openvino",
    "nncf": "nncf",
    "triton": "triton",
}


def needed(package: str) -> Any:
    """Imports an optional package. Raises RequestInvalid with the line that installs it."""
    # OpenVINO and NNCF send their makers a note of their use wherever they find this package.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(package)
    except ImportError:
        raise RequestInvalid(f"this needs {package}; run: pip install {_PIP[package]}") from None


def require_compiler(device: torch.device) -> None:
    """Raises RequestInvalid when what inductor needs to make code for a device is not there."""
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise RequestInvalid("this needs a C++ compiler; run: apt-get install g++")
    if device.type == "cuda":
        needed("triton")


def _fitting(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The images as a runtime reads them. Raises RequestInvalid for a type or size it was not made for."""
    if images.dtype != torch.float32 or tuple(images.shape[1:]) != shape:
        given, wanted = f"{images.dtype} {list(images.shape)}", ", ".join(map(str, shape))
        raise RequestInvalid(f"the images are {given}; this was made for torch.float32 [n, {wanted}]")
    return images.detach().contiguous()


class OpenVino(nn.Module):
    """An OpenVINO model that was compiled for this machine's CPU."""

    def __init__(self, compiled: Any) -> None:
        super().__init__()
        self._compiled = compiled
        self._shape = tuple(size.get_length() for size in list(compiled.inputs[0].partial_shape)[1:])
        self.keys = tuple(output.get_any_name() for output in compiled.outputs)

    @classmethod
    def load(cls, model: Any, precision: str = "fp32", threads: int | None = None) -> OpenVino:
        """Compiles a model, or the .xml file of one.

        Args:
            precision: "bf16" lets products run in bfloat16; the others keep to what the model says.
            threads: None takes as many as torch.
        """
        properties = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        }
        return cls(needed("openvino").compile_model(model, "CPU", properties))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        values = self._compiled([_fitting(images, self._shape).numpy()])
        return {key: torch.from_numpy(values[i]) for i, key in enumerate(self.keys)}


class OnnxRuntime(nn.Module):
    """An ONNX model that ONNX Runtime runs on the CPU."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self._session = session
        self._shape = tuple(session.get_inputs()[0].shape[1:])
        self.keys = tuple(output.name for output in session.get_outputs())

    @classmethod
    def load(cls, model: Path | bytes, threads: int | None = None) -> OnnxRuntime:
        """Loads a file or its bytes; `threads` None takes as many as torch."""
        runtime = needed("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        source = model if isinstance(model, bytes) else str(model)
        return cls(runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        values = self._session.run(self.keys, {"image": _fitting(images, self._shape).numpy()})
        return dict(zip(self.keys, map(torch.from_numpy, values), strict=True))


class AotPackage(nn.Module):
    """A package that AOTInductor compiled (.pt2)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._run = torch._inductor.aoti_load_package(str(path))
        self._shape = tuple(map(int, self._run.loader.get_metadata()[AOT_SHAPE].split()))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self._run(_fitting(images, self._shape))
        return outputs


class Compiled(nn.Module):
    """A module under torch.compile, as one graph for any batch; an image size is compiled at first use."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        # Weights as constants, laid out for the products: most of what compiling gains on a CPU.
        options: dict[str, Any] = {"freezing": True}
        self._run = torch.compile(module, fullgraph=True, options=options)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        images = images.detach()  # a view of its own to mark
        torch._dynamo.maybe_mark_dynamic(images, 0)
        with torch.no_grad():  # freezing needs it
            outputs: dict[str, Tensor] = self._run(images)
        return outputs
