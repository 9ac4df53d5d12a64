"""Whether the engine does what it is there for, as seen by images that went all the way.

A model is ready while an image has gone the whole road through it not long ago, on some replica. Where no
caller's has, a canary is sent (canaries.py). A replica that fails where another one does not is in trouble
(replicas.Trouble).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from lookalike_extractor.errors import LookalikeError

if TYPE_CHECKING:
    from lookalike_server.replicas import Replica
    from lookalike_server.served import Model

_log = logging.getLogger(__name__)

# A canary may be late by so many of its periods before its model is taken for lost.
_PERIODS = 2.5
# A model that failed is asked again so soon.
_RETRY_SECONDS = 1.0


_Probe = Callable[["Model", int], Awaitable[LookalikeError | None]]


@dataclass(frozen=True)
class PartHealth:
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
    replicas: by name.
    """

    ready: bool
    reason: str
    models: Mapping[str, PartHealth]
    runtimes: Mapping[str, str]
    replicas: Mapping[str, PartHealth]


class Readiness:
    """It belongs to the engine's event loop.

    Args:
        models: those that are served.
        replicas: those that compute them.
        canary_seconds: how long a model may go without an image before a canary is sent; 0 sends none.

    Attributes:
        listeners: called with the new Health when something has become ready or is so no more.
        models: set it to serve others.
    """

    def __init__(self, models: Sequence[Model], replicas: Sequence[Replica], canary_seconds: float) -> None:
        self.listeners: list[Callable[[Health], None]] = []
        self.models = models
        self._replicas, self._period = replicas, canary_seconds
        self._good_at: WeakKeyDictionary[Model, dict[int, float]] = WeakKeyDictionary()
        self._faults: WeakKeyDictionary[Model, dict[int, str]] = WeakKeyDictionary()
        self._suspected = [asyncio.Event() for _ in replicas]
        self._told: Mapping[str, bool] = {}

    @property
    def stalled(self) -> str:
        """Why nothing can be computed at the moment, or ""."""
        gone = [replica.trouble.gone for replica in self._replicas]
        return gone[0] if all(gone) else ""

    def good(self, model: Model, replica: int) -> None:
        """An image of this model has come through."""
        self._good_at.setdefault(model, {})[replica] = time.monotonic()

    def suspect(self) -> None:
        """Something failed: canaries are sent at once."""
        for suspected in self._suspected:
            suspected.set()

    def health(self) -> Health:
        by_model = {model: self._model(model) for model in self.models}
        models = {name: by_model[model] for model in self.models for name in model.spaces}
        runtimes = {name: model.runtime for model in self.models for name in model.spaces}
        reason = next((health.reason for health in models.values() if not health.ready), "")
        replicas = {replica.name: self._replica(replica) for replica in self._replicas}
        return Health(not reason, reason, models, runtimes, replicas)

    def tell(self) -> None:
        """Calls the listeners if anything has changed for them."""
        health = self.health()
        parts = {"recipe": health.models, "replica": health.replicas}
        ready = {f"{kind} {name}": part.ready for kind in parts for name, part in parts[kind].items()}
        if ready == self._told:
            return
        self._told = ready
        for name, part in {**health.replicas, **health.models}.items():
            if not part.ready:
                _log.warning("%s is not ready: %s", name, part.reason)
        for listener in self.listeners:
            listener(health)

    async def send_canaries(self, replica: Replica, probe: _Probe) -> None:
        """Sends canaries through one replica, and returns when it is time for more.

        Args:
            probe: sends one through a model on a replica, and returns its fault.
        """
        suspected = self._suspected[replica.number]
        models = list(self.models) if suspected.is_set() else self._silent(replica)
        suspected.clear()
        if not replica.trouble.gone:
            await asyncio.gather(*(self._send(model, replica, probe) for model in models))
        self.tell()
        troubled = bool(replica.trouble) or any(self._fault(model, replica) for model in self.models)
        with suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_SECONDS if troubled else self._period / 2):
                await suspected.wait()

    async def _send(self, model: Model, replica: Replica, probe: _Probe) -> None:
        try:
            async with asyncio.timeout(self._period * _PERIODS):
                # A moment's fault is nobody's end: so it is asked twice.
                fault = await probe(model, replica.number) and await probe(model, replica.number)
        except TimeoutError:
            late = LookalikeError("a canary did not come back in time")
            fault = None if self._fresh(model, replica) else late
        self._faults.setdefault(model, {})[replica.number] = fault.message if fault else ""
        self._judge()

    def _judge(self) -> None:
        """A replica is in trouble where it fails at what another one does well: else the model is."""
        for replica in self._replicas:
            faults = (
                self._fault(model, replica)
                for model in self.models
                if any(self._does(model, other) for other in self._replicas)
            )
            replica.set_failing(next(filter(None, faults), ""))

    def _does(self, model: Model, replica: Replica) -> bool:
        return not (replica.trouble.gone or self._fault(model, replica)) and self._fresh(model, replica)

    def _silent(self, replica: Replica) -> list[Model]:
        now = time.monotonic()
        return [
            model
            for model in self.models
            if now - self._last(model, replica) > self._period / 2 or self._fault(model, replica)
        ]

    def _fault(self, model: Model, replica: Replica) -> str:
        return self._faults.get(model, {}).get(replica.number, "")

    def _last(self, model: Model, replica: Replica) -> float:
        return self._good_at.get(model, {}).get(replica.number, -math.inf)

    def _fresh(self, model: Model, replica: Replica) -> bool:
        since = time.monotonic() - self._last(model, replica)
        return since < (self._period * _PERIODS or math.inf)

    def _model(self, model: Model) -> PartHealth:
        """Ready where one replica does it."""
        at = max(self._good_at.get(model, {}).values(), default=-math.inf)
        reasons = [self._reason(model, replica) for replica in self._replicas]
        return _part("" if "" in reasons else reasons[0], at)

    def _replica(self, replica: Replica) -> PartHealth:
        """Ready where it does all models."""
        at = max((self._last(model, replica) for model in self.models), default=-math.inf)
        reasons = (self._reason(model, replica) for model in self.models)
        return _part(next(filter(None, reasons), ""), at)

    def _reason(self, model: Model, replica: Replica) -> str:
        reason = replica.trouble.gone or self._fault(model, replica)
        if not reason and not self._fresh(model, replica):
            known = self._last(model, replica) > -math.inf
            reason = "no image has gone through lately" if known else "no image has gone through yet"
        return reason


def _part(reason: str, at: float) -> PartHealth:
    return PartHealth(not reason, reason, None if at == -math.inf else time.monotonic() - at)
