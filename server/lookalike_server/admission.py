"""The door of the engine: images on the road are bounded, by number and by bytes."""

from __future__ import annotations

import asyncio
from collections import deque

# Bulk leaves the rest to interactive callers, so that a stream never makes the server refuse them.
_BULK_SHARE = 0.75


class Room:
    """Counts what is on the road. It belongs to one event loop and is not safe for threads.

    What is larger than the whole room is let in when nothing else is there.
    """

    def __init__(self, most_images: int, most_bytes: int) -> None:
        self.images = 0
        self.bytes = 0
        self._most_images = most_images
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[asyncio.Future[None], int, int]] = deque()

    def enter(self, images: int, size: int) -> bool:
        """Takes the room if there is enough."""
        return self._take(images, size, share=1.0)

    async def wait(self, images: int, size: int) -> None:
        """Takes the room as soon as there is enough; who came first goes first."""
        if not self._waiting and self._take(images, size, _BULK_SHARE):
            return
        turn = asyncio.get_running_loop().create_future()
        place = (turn, images, size)
        self._waiting.append(place)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(place)
            else:  # let in and cancelled in the same moment
                self.leave(images, size)
            self._call_in()
            raise

    def leave(self, images: int, size: int) -> None:
        """Gives room back, and calls in those who wait for it."""
        self.images -= images
        self.bytes -= size
        self._call_in()

    def _call_in(self) -> None:
        while self._waiting:
            turn, images, size = self._waiting[0]
            if turn.done() or not self._take(images, size, _BULK_SHARE):
                return  # one that is done was cancelled, and takes itself out
            self._waiting.popleft()
            turn.set_result(None)

    def _take(self, images: int, size: int, share: float) -> bool:
        fits = (
            self.images + images <= self._most_images * share
            and self.bytes + size <= self._most_bytes * share
        )
        if self.images and not fits:
            return False
        self.images += images
        self.bytes += size
        return True
