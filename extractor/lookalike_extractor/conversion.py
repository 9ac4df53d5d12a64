"""From modules to the graphs of others: torch.export's, and OpenVINO's.

All take a module in eval mode, on the CPU, that yields {key: tensor} for float32 [n, 3, h, w], and keep its
keys, in order, as the names of the outputs; the input is called "image". The batch is free, the image size is
that of the example.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from .agreement import LEAST_COSINE, expected, shortfall, worst_errors
from .errors import CaptureFailed, LookalikeError, RequestInvalid
from .runtimes import OpenVino, needed


def export_graph(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """One graph of the whole module with a free batch.

    Raises:
        RequestInvalid: the module is in train mode, or the example has fewer than two images.
        CaptureFailed: torch.export does not take it.
    """
    check(module, example)
    with torch.no_grad(), converting("torch.export"):
        images = example.contiguous()  # compiled code takes the layout for granted
        return torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))


def check(module: nn.Module, example: Tensor) -> None:
    if module.training:
        raise RequestInvalid("the module is in train mode; call eval() first")
    if len(example) < 2:
        raise RequestInvalid("the example needs two images, or the export would fix the batch to one")


def openvino_model(module: nn.Module, example: Tensor) -> Any:
    """An OpenVINO model in fp32, not compiled yet.

    A graph is run once for OpenVINO to see, which takes a tenth of the time that torch.export does; what has
    none, or took anything for granted in that run, goes by torch.export.

    Raises:
        RequestInvalid, CaptureFailed: as export_graph, or OpenVINO does not take the module.
    """
    check(module, example)
    needed("openvino")
    return (isinstance(module, fx.GraphModule) and _of_run(module, example)) or _of_export(module, example)


def _of_run(module: fx.GraphModule, example: Tensor) -> Any:
    """None where another batch would be another run, or OpenVINO does not take it."""
    try:
        with converting("OpenVINO"), torch.no_grad():
            warnings.simplefilter("error", torch.jit._trace.TracerWarning)  # tells what was taken for granted
            images = example.contiguous()
            seen = torch.jit.trace(_Outputs(module), images, check_trace=False)
            model = _named(needed("openvino").convert_model(seen, example_input=images), module, example)
        errors = worst_errors(expected(module, example), OpenVino.load(model))
    except (LookalikeError, RuntimeError):
        return None
    return None if shortfall(errors, LEAST_COSINE["fp32"]) else model


def _of_export(module: nn.Module, example: Tensor) -> Any:
    with converting("OpenVINO"):
        model = needed("openvino").convert_model(export_graph(module, example))
    return _named(model, module, example)


class _Outputs(nn.Module):
    """A module's outputs without their keys."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.module(images).values())


def _named(model: Any, module: nn.Module, example: Tensor) -> Any:
    model.reshape([-1, *example.shape[1:]])  # the conversion leaves all sizes open
    model.inputs[0].get_tensor().set_names({"image"})
    for output, key in zip(model.outputs, keys_of(module, example), strict=True):
        output.get_tensor().set_names({key})
    return model


@contextlib.contextmanager
def converting(what: str) -> Iterator[None]:
    """Hides what a converter says about itself, and turns its failure into CaptureFailed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RequestInvalid:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise CaptureFailed(f"{what} refuses the module: {reason or type(error).__name__}") from error


def keys_of(module: nn.Module, example: Tensor) -> list[str]:
    with torch.inference_mode():
        return list(module(example[:2]))
