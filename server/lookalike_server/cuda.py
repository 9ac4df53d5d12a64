"""A GPU that computes one batch while the pixels of the next one travel.

    pinned memory ─ copying stream ─ computing stream: normalise, forward, pool ─ pinned memory ─ mark

Nothing here waits but for a mark: whoever begins a batch goes on while it travels and is computed. A slot is
one batch's own from its begin until its mark, so that no memory is written while it is read.

Source: "CUDA semantics" and "A guide on good usage of non_blocking and pin_memory()" of PyTorch's manual.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from lookalike_server.device import Descriptors, Device, Finished, Pixels, out_of_memory

if TYPE_CHECKING:
    from lookalike_extractor.descriptor import DescriptorModel

    from lookalike_server.served import InFlight

_AT_ONCE = 2


class Mark(Protocol):
    """Behind some work on a device (torch.cuda.Event)."""

    def query(self) -> bool:
        """Whether that is done. Raises what went wrong on the device."""

    def synchronize(self) -> None:
        """Waits until it is, without holding up other threads. Raises what went wrong on the device."""


class Streams:
    """Two lines of work on a GPU, each in order, beside each other: one copies, one computes.

    Work that is given to them is done later; a mark tells when.
    """

    def __init__(self, name: str) -> None:
        self._device = torch.device(name)
        self._copying, self._computing = torch.cuda.Stream(self._device), torch.cuda.Stream(self._device)
        torch.cuda.synchronize(self._device)  # what brought the models there is not in these lines

    def pinned(self, *shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
        """Memory of the host from which and to which a GPU copies while others go on."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def memory(self, size: int) -> Tensor:
        """Bytes of the GPU, of the stream that writes them."""
        with torch.cuda.stream(self._copying):
            return torch.empty(size, dtype=torch.uint8, device=self._device)

    def copy(self, source: Tensor, target: Tensor) -> Mark:
        with torch.cuda.stream(self._copying):
            target.copy_(source, non_blocking=True)
        return self._mark(self._copying)

    def compute(self, work: Callable[[], None]) -> Mark:
        """Does the work behind all that has been copied by then."""
        self._computing.wait_stream(self._copying)
        with torch.cuda.stream(self._computing):
            work()
        return self._mark(self._computing)

    def since(self, mark: Mark) -> float:
        """Seconds since a mark that has been reached."""
        assert isinstance(mark, torch.cuda.Event)
        now = self._mark(self._copying)
        now.synchronize()
        return float(mark.elapsed_time(now)) / 1000

    @staticmethod
    def _mark(stream: torch.cuda.Stream) -> torch.cuda.Event:
        mark = torch.cuda.Event(enable_timing=True, blocking=True)  # whoever waits leaves his core to others
        mark.record(stream)
        return mark


class Slot:
    """Room for the pixels of one batch, on both sides.

    Attributes:
        mark: behind the last work that reads or writes it.
    """

    def __init__(self, streams: Streams) -> None:
        self.mark: Mark | None = None
        self._streams = streams
        self._staged = self._arrived = torch.empty(0, dtype=torch.uint8)

    def stage(self, pixels: Sequence[Pixels]) -> tuple[Tensor, Tensor]:
        """Returns uint8 [n, h, w, 3], the pixels in pinned memory, and room for them on the device.

        Waits until the batch before is done with this slot.
        """
        if self.mark is not None:
            with suppress(RuntimeError):  # that batch's fault; a device that is lost says so again
                self.mark.synchronize()
        shape = (len(pixels), *pixels[0].shape)
        size = math.prod(shape)
        if size > len(self._staged):
            room = 1 << (size - 1).bit_length()  # a few sizes, not one for each batch that is the largest yet
            self._staged, self._arrived = self._streams.pinned(room), self._streams.memory(room)
        staged, arrived = self._staged[:size].view(shape), self._arrived[:size].view(shape)
        np.stack(pixels, out=staged.numpy())
        return staged, arrived


@dataclass
class Flight:
    """A batch on its way.

    Attributes:
        descriptors: float32 [n, d] by recipe, in pinned memory; they are there once the mark is reached.
        late: seconds from its end until its result was asked for; 0 when that was waited for.
    """

    streams: Streams
    mark: Mark | None = None
    descriptors: dict[str, Tensor] = field(default_factory=dict)
    late: float = 0.0

    def done(self) -> bool:
        """Raises what went wrong on the device."""
        return self._reached.query()

    def result(self) -> Descriptors:
        """Waits for it. Raises what went wrong on the device."""
        ended = self.done()
        self._reached.synchronize()
        self.late = self.streams.since(self._reached) if ended else 0.0
        return {recipe: rows.numpy().copy() for recipe, rows in self.descriptors.items()}

    @property
    def _reached(self) -> Mark:
        assert self.mark is not None  # it is set before anybody sees the flight
        return self.mark


class CudaDevice(Device):
    """Models on a GPU, with two batches in flight.

    Args:
        name: "cuda:N".
        streams: of that GPU, when they are not to be made here.
    """

    at_once = _AT_ONCE

    def __init__(
        self,
        models: Sequence[DescriptorModel],
        name: str,
        runtimes: Sequence[str] = (),
        streams: Streams | None = None,
    ) -> None:
        super().__init__(models, name, runtimes)
        self._streams = streams or Streams(name)
        self._slots = deque(Slot(self._streams) for _ in range(_AT_ONCE))

    def begin(self, model: int, pixels: Sequence[Pixels]) -> InFlight:
        """Sends a batch on its way. One that does not fit into memory is computed here, alone, in parts.

        Memory is taken while a batch is begun: it runs out here, and not where the result is asked for.
        """
        safe = self._safe[model]
        if len(pixels) <= safe.most:
            try:
                flight = self._send(model, pixels)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            else:
                safe.went_well(len(pixels))
                return flight
        # The slot whose turn it is now is that of the batch before: this one waits until that is done.
        return Finished(self.run(model, pixels))

    def _forward(self, model: int, pixels: Sequence[Pixels]) -> Descriptors:
        return self._send(model, pixels).result()

    def _send(self, model: int, pixels: Sequence[Pixels]) -> Flight:
        slot, flight = self._slots[0], Flight(self._streams)
        self._slots.rotate()
        staged, arrived = slot.stage(pixels)
        slot.mark = self._streams.copy(staged, arrived)
        flight.mark = slot.mark = self._streams.compute(lambda: self._compute(model, arrived, flight))
        return flight

    def _compute(self, model: int, arrived: Tensor, flight: Flight) -> None:
        with torch.inference_mode():
            for recipe, rows in self.models[model](arrived.permute(0, 3, 1, 2)).items():
                landing = self._streams.pinned(*rows.shape, dtype=rows.dtype)
                flight.descriptors[recipe] = landing.copy_(rows, non_blocking=True)
