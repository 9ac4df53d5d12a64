"""What computing costs, learned while it runs: seconds = each * n + once, for each model.

A model has one input size, so that its cost is that of the size too. The shape of the line, how `once`
compares with `each`, belongs to model and device and changes slowly; the speed is that of the last batches.
And by how much the answers then come later than that says.
"""

from __future__ import annotations

import math
import threading

# Torch on a CPU pads a batch of one, so that it takes as long as two; on a GPU it takes hardly less.
SMALLEST = 2
# What each new batch leaves of what was learned before, of the shape and of the speed.
_SHAPE_MEMORY, _SPEED_MEMORY = 0.98, 0.8
_LEAST_SEEN = 3
# A batch that took far longer than ever says more of the machine than of the model.
_MOST_TIMES = 4.0
# Spread of the sizes, as a share of their mean, from which the slope is believed; and the least slope, as a
# share of the mean cost of an image.
_LEAST_SPREAD = 0.25
_LEAST_SLOPE = 0.001

# Of a margin: where it begins and its bounds, the share that is to be done within it, how fast it is learned.
_FIRST_TIMES, _LEAST_TIMES, _GREATEST_TIMES = 1.15, 1.05, 3.0
_IN_TIME, _STEP = 0.95, 0.05
_LEAST_PREDICTED = 0.05


class Cost:
    """Weighted least squares of seconds over n. Any thread may use it.

    Args:
        smallest: images of the smallest batch; fewer take as long.

    Attributes:
        smallest: as it was given.
        each, once: of the line, in seconds; 0 while nothing is known.
    """

    def __init__(self, smallest: int = SMALLEST) -> None:
        self.smallest = smallest
        self.each = self.once = 0.0
        self._slope = self._start = 0.0
        self._speed = 1.0
        self._seen = 0
        self._learning = threading.Lock()
        self._weight = self._n = self._nn = self._t = self._nt = 0.0

    @property
    def known(self) -> bool:
        return self._seen >= _LEAST_SEEN

    def learn(self, n: int, seconds: float, weight: float = 1.0) -> None:
        """Takes note of a batch of n that took so long, and tells as much as so many others."""
        with self._learning:
            if self.known:
                seconds = min(seconds, _MOST_TIMES * self.seconds(n) + 0.01)
                now = seconds / (self._slope * n + self._start)
                self._speed = _SPEED_MEMORY * self._speed + (1 - _SPEED_MEMORY) * now
            self._seen += 1
            self._remember(n, seconds / self._speed, weight)
            self._solve()
            self.each, self.once = self._slope * self._speed, self._start * self._speed

    def seconds(self, n: int) -> float:
        """Of a batch of n; 0 while nothing is known."""
        return self.each * n + self.once if self.known else 0.0

    def seconds_in_batches(self, n: int, most: int) -> float:
        """Of n images in batches of at most so many; 0 while nothing is known."""
        return self.each * n + self.once * -(-n // most) if self.known else 0.0

    def within(self, seconds: float) -> int:
        """How many images can be computed in so many seconds; 0 when not even one."""
        return int(max(0.0, seconds - self.once) / self.each) if self.known and self.each else 1 << 30

    def efficient(self, share: float, least: int = SMALLEST) -> int:
        """The smallest batch that gives this share of the most images a second; larger ones take longer."""
        if not self.known or not self.each:
            return 1 << 30
        return max(least, math.ceil(share / (1 - share) * self.once / self.each))

    def _remember(self, n: int, seconds: float, weight: float) -> None:
        self._weight = _SHAPE_MEMORY * self._weight + weight
        self._n = _SHAPE_MEMORY * self._n + weight * n
        self._nn = _SHAPE_MEMORY * self._nn + weight * n * n
        self._t = _SHAPE_MEMORY * self._t + weight * seconds
        self._nt = _SHAPE_MEMORY * self._nt + weight * n * seconds

    def _solve(self) -> None:
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - mean_n**2
        if variance > (_LEAST_SPREAD * mean_n) ** 2:
            slope = (self._nt / self._weight - mean_n * mean_t) / variance
            self._slope = min(max(slope, _LEAST_SLOPE * mean_t / mean_n), mean_t / mean_n)
            self._start = mean_t - self._slope * mean_n
        elif not self._slope:
            self._slope = mean_t / mean_n


class Margin:
    """How many times as long as predicted to allow, learned so that one answer in twenty takes longer.

    A quantile followed one observation at a time (Robbins and Monro, "A stochastic approximation method",
    1951): a step up for each that took longer, a nineteenth of it down for each that did not.

    Attributes:
        times: the predicted seconds to allow.
    """

    def __init__(self) -> None:
        self.times = _FIRST_TIMES

    def learn(self, predicted: float, seconds: float) -> None:
        """Takes note of what was predicted to take so long, and took at least so many seconds."""
        if predicted < _LEAST_PREDICTED:
            return  # what is besides the work counts for too much
        step = 1 - _IN_TIME if seconds <= self.times * predicted else -_IN_TIME
        self.times = min(max(self.times * (1 - _STEP * step), _LEAST_TIMES), _GREATEST_TIMES)
