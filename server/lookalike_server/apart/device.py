"""A device whose models are in a process of their own, as the engine sees it."""

from __future__ import annotations

import logging
import os
import signal
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from lookalike_server.apart.memory import PixelMemory
from lookalike_server.apart.orders import Batch, Loaded, Order, WarmUp
from lookalike_server.apart.process import take
from lookalike_server.children import ended
from lookalike_server.device import Descriptors, Finished, Pixels
from lookalike_server.errors import InternalError

_log = logging.getLogger(__name__)


class ApartDevice:
    """Starts a process, which loads models, and another one when that has ended.

    One thread at a time uses it; `give_up` may be called by any. The process ends with it.

    Raises what the models raise, and InternalError when the system has no process for it.

    Attributes:
        models: what they are, in the order of their index in `begin`.
        runtimes: what each runs in.
    """

    at_once = 1

    def __init__(self, order: Order) -> None:
        self.name = order.name
        self._order, self._lost = order, False
        self._computing = self._hung = False
        loaded = self._start()
        self.models, self.runtimes = loaded.models, list(loaded.runtimes)
        # Another process is to give the same bits: it makes no choice of its own.
        self._order = replace(order, wishes=loaded.runtimes)

    def warm_up(self) -> list[list[tuple[int, float]]]:
        """As device.Device.warm_up."""
        return cast("list[list[tuple[int, float]]]", self._ask(WarmUp()))

    def usable(self) -> bool:
        """Whether there is a process, or can be another one."""
        return not self._lost

    def begin(self, model: int, pixels: Sequence[Pixels]) -> Finished:
        """Computes a batch of uint8 [h, w, 3]; the result is there when it returns.

        Raises RuntimeError with what went wrong in the process, or because it has ended.
        """
        if self._process.poll() is not None:
            self._start_again()
        np.stack(pixels, out=self._pixels.images(len(pixels), self.models[model].preprocessing))
        self._computing = True
        try:
            return Finished(cast(Descriptors, self._ask(Batch(model, len(pixels)))))
        finally:
            self._computing = False

    def give_up(self) -> None:
        """Ends the process if it is at a batch: who waits for that is told so."""
        if self._computing:
            self._hung = True
            self._process.kill()

    def _start(self) -> Loaded:
        self._hung = False
        try:
            started = take(self._order.wishes)
        except OSError as error:
            raise InternalError(f"A process for models cannot be started: {error.strerror}.") from None
        self._connection, self._process = started.connection, started.process
        self._end = weakref.finalize(self, started.end)
        try:
            loaded = cast(Loaded, self._ask(self._order))
            self._pixels = PixelMemory(started.memory, loaded.inputs, self._order.max_batch)
        finally:
            os.close(started.memory)
        return loaded

    def _start_again(self) -> None:
        _log.warning("%s Another one is started.", self._how_it_ended())
        self._end()
        try:
            loaded = self._start()
            if [model.spaces for model in loaded.models] != [model.spaces for model in self.models]:
                raise InternalError("The files of the models have changed. Start the server again.")
        except BaseException:
            self._lost = True
            raise

    def _ask(self, request: object) -> object:
        try:
            self._connection.send(request)
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise InternalError(self._how_it_ended()) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _how_it_ended(self) -> str:
        status = ended(self._process)
        how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
        killed = "; perhaps the system had no memory left" if status == -signal.SIGKILL else ""
        return f"A process of models ended {how}{', for it hung' if self._hung else killed}."
