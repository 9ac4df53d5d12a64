"""The door of the engine: images on the road are bounded, by number, by bytes and by client."""

from __future__ import annotations

import asyncio
from collections import Counter

from lookalike_server.turns import Turns

# Bulk leaves the rest to interactive callers, so that a stream never makes the server refuse them.
_BULK_SHARE = 0.75
# A client may hold so many times what is still free: alone 8/9 of the room, one of two 8/17 of it. So there
# is room for a newcomer, however much the others send (Choudhury and Hahne, "Dynamic queue length thresholds
# for shared-memory packet switches", 1998).
_TIMES_FREE = 8

_Place = tuple[asyncio.Future[None], int, int, str]


class Room:
    """Counts what is on the road. It belongs to one event loop and is not safe for threads.

    What is larger than the whole room is let in when nothing else is there.
    """

    def __init__(self, most_images: int, most_bytes: int) -> None:
        self.images = 0
        self.bytes = 0
        self._most_images = most_images
        self._most_bytes = most_bytes
        self._held: Counter[str] = Counter()
        self._waiting: Turns[_Place] = Turns()

    def enter(self, images: int, size: int, client: str = "") -> bool:
        """Takes the room if there is enough, and the client holds not too much of it already."""
        fair = self._held[client] + images <= _TIMES_FREE * (self._most_images - self.images)
        return (fair or not self.images) and self._take(images, size, client, share=1.0)

    async def wait(self, images: int, size: int, client: str = "") -> None:
        """Takes the room as soon as there is enough; clients take turns, each in the order of his calls."""
        if not self._waiting and self._take(images, size, client, _BULK_SHARE):
            return
        turn = asyncio.get_running_loop().create_future()
        place = (turn, images, size, client)
        self._waiting.put(client, place)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(client, place)
            else:  # let in and cancelled in the same moment
                self.leave(images, size, client)
            self._call_in()
            raise

    def force(self, images: int, size: int, client: str = "") -> None:
        """Takes room whether or not it is there: for canaries."""
        self.images += images
        self.bytes += size
        self._held[client] += images

    def leave(self, images: int, size: int, client: str = "") -> None:
        """Gives room back, and calls in those who wait for it."""
        self.images -= images
        self.bytes -= size
        self._held[client] -= images
        if self._held[client] <= 0:
            del self._held[client]
        self._call_in()

    def _call_in(self) -> None:
        while self._waiting:
            turn, images, size, client = self._waiting.first()
            if turn.done() or not self._take(images, size, client, _BULK_SHARE):
                return  # one that is done was cancelled, and takes itself out
            self._waiting.take()
            turn.set_result(None)

    def _take(self, images: int, size: int, client: str, share: float) -> bool:
        fits = (
            self.images + images <= self._most_images * share
            and self.bytes + size <= self._most_bytes * share
        )
        if self.images and not fits:
            return False
        self.force(images, size, client)
        return True
