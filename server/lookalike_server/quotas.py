"""How much one token may ask for: images a second, and images on the road at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lookalike_server.errors import TokenLimit

# How soon to come back when it is other images that must end first.
_PATIENCE = 0.1


class Quota:
    """Counts the images of one token. It belongs to one event loop.

    Rate: a bucket that holds a second's worth and may be overdrawn by one request, so that a request larger
    than the bucket is slow and not impossible. In flight: what is larger than the whole is let in alone.

    Args:
        per_second: images; None: any number.
        in_flight: images; None: any number.
    """

    def __init__(self, per_second: float | None = None, in_flight: int | None = None) -> None:
        self.per_second = per_second
        self.most = in_flight
        self.images = 0
        self._left = per_second or 0.0
        self._looked = time.monotonic()
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, images: int, *, wait: bool) -> AsyncIterator[None]:
        """Takes the images in until the block ends.

        Args:
            wait: waits for its turn, as streams do. Otherwise raises TokenLimit, with a time to come back.
        """
        if wait:
            await self._wait(images)
        elif patience := self._patience(images):
            raise TokenLimit(
                f"The limit of this token is reached. Try again in {patience:.2f} s.",
                retry_after_ms=f"{patience * 1000:.0f}",
            )
        self._left -= images
        self.images += images
        try:
            yield
        finally:
            self.images -= images
            self._changed.set()

    async def _wait(self, images: int) -> None:
        async with self._turn:
            while patience := self._patience(images):
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), patience)
                except TimeoutError:
                    continue

    def _patience(self, images: int) -> float:
        """Seconds until it is worth asking again; 0 when the images may go."""
        if self.most is not None and self.images and self.images + images > self.most:
            return _PATIENCE
        if self.per_second is None:
            return 0.0
        now = time.monotonic()
        self._left = min(self._left + (now - self._looked) * self.per_second, self.per_second)
        self._looked = now
        return max(0.0, -self._left / self.per_second)
