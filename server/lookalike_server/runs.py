"""Equal things side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """Members in runs: run i is members[starts[i] : starts[i + 1]]. int64 [n] and int64 [r + 1]."""

    members: Numbers
    starts: Numbers

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def firsts(self) -> Numbers:
        """The first member of each run."""
        return self.members[self.starts[:-1]]

    @property
    def lengths(self) -> Numbers:
        return np.diff(self.starts)

    def chosen(self, which: NDArray[np.integer]) -> Runs:
        """Returns those runs, in that order."""
        begins, lengths = self.starts[which], self.starts[which + 1] - self.starts[which]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        offsets = np.arange(starts[-1]) - np.repeat(starts[:-1] - begins, lengths)
        return Runs(self.members[offsets], starts)

    def followed_by(self, other: Runs) -> Runs:
        starts = np.concatenate([self.starts[:-1], self.starts[-1] + other.starts])
        return Runs(np.concatenate([self.members, other.members]), starts)


NO_RUNS = Runs(np.empty(0, np.int64), np.zeros(1, np.int64))
