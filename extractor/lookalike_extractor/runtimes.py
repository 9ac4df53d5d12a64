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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import RequestInvalid

AOT_SHAPE = "lookalike_input"
"""The key of an image's shape in a package, whose code checks nothing."""

# Fewer images for each thread are not faster so.
_EACH = 4

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
    """An OpenVINO model that was compiled for this machine's CPU.

    All threads share the work of a few images. Of a batch with _EACH images and more for each thread, every
    thread computes whole images by itself, if that gives the same bits: threads that share an image wait for
    the slowest of them at each layer, which on a machine with other work to do is most of what is lost.

    Args:
        shared: compiled for one request at a time, of all threads.
        apart: the same model, compiled for as many requests at a time as there are threads.
    """

    def __init__(self, shared: Any, apart: Any = None) -> None:
        super().__init__()
        self._shared = shared
        self._shape = tuple(size.get_length() for size in list(shared.inputs[0].partial_shape)[1:])
        self.keys = tuple(output.get_any_name() for output in shared.outputs)
        self._least = sys.maxsize
        if apart is not None:
            self._queue = needed("openvino").AsyncInferQueue(apart)
            self._queue.set_callback(_keep)
            self._least = _EACH * len(self._queue) if self._same() else sys.maxsize

    @classmethod
    def load(cls, model: Any, precision: str = "fp32", threads: int | None = None) -> OpenVino:
        """Compiles a model, or the .xml file of one.

        Args:
            precision: "bf16" lets products run in bfloat16; the others keep to what the model says.
            threads: None takes as many as torch.
        """
        count = threads or torch.get_num_threads()
        properties = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": count,
        }
        compile_model = needed("openvino").compile_model
        shared = compile_model(model, "CPU", properties)
        return cls(
            shared, compile_model(model, "CPU", properties | {"NUM_STREAMS": count}) if count > 1 else None
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        pixels = _fitting(images, self._shape).numpy()
        values = self._apart(pixels) if len(pixels) >= self._least else self._together(pixels)
        return {key: torch.from_numpy(value) for key, value in zip(self.keys, values, strict=True)}

    def _together(self, pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        values = self._shared([pixels])
        return [values[i] for i in range(len(self.keys))]

    def _apart(self, pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        rows: list[list[NDArray[np.float32]]] = [[] for _ in pixels]
        for place, row in enumerate(rows):
            self._queue.start_async([pixels[place : place + 1]], row)
        self._queue.wait_all()
        return [np.concatenate(values) for values in zip(*rows, strict=True)]

    def _same(self) -> bool:
        """Whether images that one thread computes have the bits of a small batch."""
        images = np.random.default_rng(0).standard_normal((2, *self._shape), np.float32)
        return all(map(np.array_equal, self._together(images), self._apart(images)))


def _keep(request: Any, row: list[NDArray[np.float32]]) -> None:
    """Copies what a request of the queue has computed, whose memory is the next one's too."""
    row += [tensor.data.copy() for tensor in request.output_tensors]


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
