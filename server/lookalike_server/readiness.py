"""Whether the engine does what it is there for, as seen by images that went all the way.

A model is ready while an image has gone the whole road through it not long ago. Where no caller's has, a
canary is sent: a small image of our own, through every stage and past every stored result.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from lookalike_extractor.errors import LookalikeError
from PIL import Image

_log = logging.getLogger(__name__)

# A canary may be late by so many of its periods before its model is taken for lost.
_PERIODS = 2.5
# A model that failed is asked again so soon.
_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class ModelHealth:
    """Attributes:
    reason: why it is not ready; "" when it is.
    last_good_s: seconds since an image went through; None before the first.
    """

    ready: bool
    reason: str
    last_good_s: float | None


@dataclass(frozen=True)
class Health:
    """Attributes:
    ready: whether all models are.
    models, runtimes: by recipe.
    """

    ready: bool
    reason: str
    models: Mapping[str, ModelHealth]
    runtimes: Mapping[str, str]


@cache
def canary() -> bytes:
    """A PNG of 64 x 64 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (120, 160, 200)).save(file, "PNG")
    return file.getvalue()


class Readiness:
    """It belongs to the engine's event loop.

    Args:
        groups: of each model, its recipes.
        runtimes: of each model.
        canary_seconds: how long a model may go without an image before a canary is sent; 0 sends none.

    Attributes:
        listeners: called with the new Health when something has become ready or is so no more.
        stalled: why the device answers nothing at the moment, or "".
    """

    def __init__(
        self, groups: Sequence[Sequence[str]], runtimes: Sequence[str], canary_seconds: float
    ) -> None:
        self.listeners: list[Callable[[Health], None]] = []
        self.stalled = ""
        self._groups, self._runtimes, self._period = groups, runtimes, canary_seconds
        self._all = list(range(len(groups)))
        self._good_at: list[float | None] = [None] * len(groups)
        self._faults = [""] * len(groups)
        self._suspected = asyncio.Event()
        self._told: Mapping[str, bool] = {}

    def good(self, model: int) -> None:
        """An image of this model has come through."""
        self._good_at[model] = time.monotonic()

    def suspect(self) -> None:
        """Something failed: canaries are sent at once."""
        self._suspected.set()

    def health(self) -> Health:
        models = {name: self._model(model) for model, names in enumerate(self._groups) for name in names}
        runtimes = {
            name: runtime
            for names, runtime in zip(self._groups, self._runtimes, strict=True)
            for name in names
        }
        reason = next((health.reason for health in models.values() if not health.ready), "")
        return Health(not reason, reason, models, runtimes)

    def tell(self) -> None:
        """Calls the listeners if anything has changed for them."""
        health = self.health()
        ready = {name: model.ready for name, model in health.models.items()}
        if ready == self._told:
            return
        self._told = ready
        if not health.ready:
            _log.warning("not ready: %s", health.reason)
        for listener in self.listeners:
            listener(health)

    async def send_canaries(self, probe: Callable[[int], Awaitable[LookalikeError | None]]) -> None:
        """Sends canaries, and returns when it is time for more.

        Args:
            probe: sends one through a model, and returns its fault.
        """
        if not self.stalled:
            models = self._all if self._suspected.is_set() else self._silent()
            self._suspected.clear()
            await asyncio.gather(*(self._send(model, probe) for model in models))
        self.tell()
        troubled = self.stalled or any(self._faults)
        with suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_SECONDS if troubled else self._period / 2):
                await self._suspected.wait()

    async def _send(self, model: int, probe: Callable[[int], Awaitable[LookalikeError | None]]) -> None:
        try:
            async with asyncio.timeout(self._period * _PERIODS):
                # A canary may share its batch with an image that makes the model fail: so it is asked twice.
                fault = await probe(model) and await probe(model)
        except TimeoutError:
            fault = None if self._fresh(model) else LookalikeError("a canary did not come back in time")
        self._faults[model] = fault.message if fault else ""

    def _silent(self) -> list[int]:
        now = time.monotonic()
        return [
            model
            for model, at in enumerate(self._good_at)
            if at is None or now - at > self._period / 2 or self._faults[model]
        ]

    def _fresh(self, model: int) -> bool:
        at = self._good_at[model]
        return at is not None and (not self._period or time.monotonic() - at < self._period * _PERIODS)

    def _model(self, model: int) -> ModelHealth:
        at = self._good_at[model]
        reason = self.stalled or self._faults[model]
        if not reason and not self._fresh(model):
            reason = "no image has gone through lately" if at is not None else "no image has gone through yet"
        return ModelHealth(not reason, reason, None if at is None else time.monotonic() - at)
