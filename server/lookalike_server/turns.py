"""Turns between clients: who sends much waits behind himself, not before the others."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Turns(Generic[Thing]):
    """A line in which each client has a line of its own, served in turns. Not safe for threads."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Thing]] = {}
        self._order: deque[str] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, client: str, thing: Thing) -> None:
        if client not in self._lines:
            self._lines[client] = deque()
            self._order.append(client)
        self._lines[client].append(thing)
        self._count += 1

    def first(self) -> Thing:
        """Whose turn it is. There must be one."""
        return self._lines[self._order[0]][0]

    def take(self) -> Thing:
        client = self._order.popleft()
        line = self._lines[client]
        thing = line.popleft()
        self._count -= 1
        if line:
            self._order.append(client)
        else:
            del self._lines[client]
        return thing

    def remove(self, client: str, thing: Thing) -> None:
        line = self._lines[client]
        line.remove(thing)
        self._count -= 1
        if not line:
            del self._lines[client]
            self._order.remove(client)
