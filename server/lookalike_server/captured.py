"""A model whose passes are recorded as CUDA graphs: each is launched as one, at little cost for the host.

A graph is of one size. So there are a few sizes, smaller batches are padded to the next one, and the rows of
the padding are cut off. What a pass computes does not depend on what the padding holds; the kernels, and with
them the last bits, may depend on its size.

Source: "CUDA Graphs" in "CUDA semantics" of PyTorch's manual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lookalike_extractor.descriptor import DescriptorModel

_WARM_UPS = 3

Pass = Callable[[], dict[str, Tensor]]


class Recorder(Protocol):
    def record(self, model: DescriptorModel, pixels: Tensor) -> Pass:
        """Returns what computes the model again and again, on what `pixels` hold then.

        Rows that a pass returns are there until the next one, of any size.
        """


class GraphRecorder:
    """Records CUDA graphs that share their memory: so they are for one stream, one after the other."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, model: DescriptorModel, pixels: Tensor) -> Pass:
        with torch.cuda.device(self._device), torch.inference_mode():
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UPS):  # what is made at first use must not be recorded
                    model(pixels)
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Others may use the GPU meanwhile: a reload records while the models before go on.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                rows: dict[str, Tensor] = model(pixels)

        def run() -> dict[str, Tensor]:
            graph.replay()
            return rows

        return run


class Captured(nn.Module):
    """Computes as the model does, which it holds.

    Args:
        model: on its device, in eval mode.
        most: the largest batch that is recorded; larger ones are computed without.

    Attributes:
        spaces, preprocessing: the model's.
    """

    def __init__(self, model: DescriptorModel, most: int, recorder: Recorder | None = None) -> None:
        super().__init__()
        self.model, self.spaces, self.preprocessing = model, model.spaces, model.preprocessing
        device, size = model.scale.device, model.preprocessing
        recorder = recorder or GraphRecorder(device)
        pixels = torch.zeros((most, size.height, size.width, 3), dtype=torch.uint8, device=device)
        self._pixels = pixels.permute(0, 3, 1, 2)  # laid out as batches are
        largest_first = reversed(sizes(most))  # so that those after it find their memory in its
        self._passes = {n: recorder.record(model, self._pixels[:n]) for n in largest_first}
        self._sizes = sizes(most)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """uint8 [n, 3, h, w] -> float32 [n, d] by recipe, which are there until the next call."""
        count = len(pixels)
        if count > self._sizes[-1]:
            described: dict[str, Tensor] = self.model(pixels)
            return described
        self._pixels[:count].copy_(pixels)
        rows = self._passes[next(size for size in self._sizes if size >= count)]()
        return {recipe: each[:count] for recipe, each in rows.items()}


def sizes(most: int) -> list[int]:
    """Powers of two, with those half as large again between them, up to `most`, which is the last one."""
    doubled = [1 << power for power in range(most.bit_length())]
    between = [3 * size // 2 for size in doubled[1:]]
    return sorted({size for size in (*doubled, *between, most) if size <= most})
