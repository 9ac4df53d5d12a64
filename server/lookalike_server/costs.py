"""What computing costs, learned while it runs: seconds = each * n + once, for each model.

A model has one input size, so that its cost is that of the size too.
"""

from __future__ import annotations

import math

# Weight of what was learned before, at each new batch: about the last fifty count.
_MEMORY = 0.98
_LEAST_SEEN = 3
# A batch that took far longer than ever says more of the machine than of the model.
_MOST_TIMES = 4.0
# Spread of the sizes, as a share of their mean, from which the slope is believed; and the least slope.
_LEAST_SPREAD = 0.25
_LEAST_SLOPE = 0.02


class Cost:
    """Exponentially weighted least squares of seconds over n. Written by one thread, read by any."""

    def __init__(self) -> None:
        self.each = self.once = 0.0
        self._seen = 0
        self._weight = self._n = self._nn = self._t = self._nt = 0.0

    @property
    def known(self) -> bool:
        return self._seen >= _LEAST_SEEN

    def learn(self, n: int, seconds: float) -> None:
        """Takes note of a batch of n that took so long."""
        if self.known:
            seconds = min(seconds, _MOST_TIMES * self.seconds(n) + 0.01)
        self._seen += 1
        self._weight = _MEMORY * self._weight + 1
        self._n = _MEMORY * self._n + n
        self._nn = _MEMORY * self._nn + n * n
        self._t = _MEMORY * self._t + seconds
        self._nt = _MEMORY * self._nt + n * seconds
        self._solve()

    def seconds(self, n: int) -> float:
        """Of a batch of n; 0 while nothing is known."""
        return self.each * n + self.once if self.known else 0.0

    def seconds_in_batches(self, n: int, most: int) -> float:
        """Of n images in batches of at most so many; 0 while nothing is known."""
        return self.each * n + self.once * -(-n // most) if self.known else 0.0

    def within(self, seconds: float) -> int:
        """How many images can be computed in so many seconds; 0 when not even one."""
        return int(max(0.0, seconds - self.once) / self.each) if self.known and self.each else 1 << 30

    def efficient(self, share: float, least: int = 2) -> int:
        """The smallest batch that gives this share of the most images a second; larger ones take longer."""
        if not self.known or not self.each:
            return 1 << 30
        return max(least, math.ceil(share / (1 - share) * self.once / self.each))

    def _solve(self) -> None:
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - mean_n**2
        if variance > (_LEAST_SPREAD * mean_n) ** 2:
            slope = (self._nt / self._weight - mean_n * mean_t) / variance
            self.each = min(max(slope, _LEAST_SLOPE * mean_t / mean_n), mean_t / mean_n)
            self.once = mean_t - self.each * mean_n
        elif self.each:
            # Sizes that are all alike tell how fast the machine is now, not what a size more would cost.
            faster = mean_t / (self.each * mean_n + self.once)
            self.each, self.once = self.each * faster, self.once * faster
        else:
            self.each = mean_t / mean_n
