"""Whitening: turns and scales features so that what copies share counts and what all photos share does not.

Like glasses: ground once from examples, worn ever after. All fits work in float64 and give a Whitening in
float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import FitRefused

RIDGE = 0.1
"""Added to every eigenvalue, in units of their mean. Without it the least directions, noise, are loudest."""

LEAST_SAMPLES = 64

Floats = NDArray[np.float32]
_Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Whitening:
    """An affine map of pooled features, (x - mean) @ projection.

    Attributes:
        mean: float32 [c].
        projection: float32 [c, d].
        spectrum: float32 [c], the eigenvalues of what was fitted, largest first.
        ridge: in units of the mean eigenvalue.
        samples: rows that it was fitted on.
    """

    mean: Floats
    projection: Floats
    spectrum: Floats
    ridge: float
    samples: int

    def __call__(self, features: Floats) -> Floats:
        """float32 [n, c] of any length -> float32 [n, d], rows of length 1."""
        whitened: Floats = WhiteningLayer(self)(torch.from_numpy(features)).numpy()
        return whitened


class WhiteningLayer(nn.Module):
    """A whitening as the end of a network: L2, centre, project, L2."""

    def __init__(self, whitening: Whitening) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.from_numpy(whitening.mean))
        self.projection = nn.Buffer(torch.from_numpy(whitening.projection))

    def forward(self, features: Tensor) -> Tensor:
        """[n, c] -> [n, d], rows of length 1."""
        centred = F.normalize(features, dim=1) - self.mean
        # One product for each row: a product over the batch would give other last bits in other batches.
        projection = self.projection.expand(len(features), -1, -1)
        return F.normalize(torch.bmm(centred[:, None], projection)[:, 0], dim=1)


def fit_pca(rows: Floats, dimension: int, ridge: float = RIDGE, power: float = 1.0) -> Whitening:
    """PCA whitening (Jegou and Chum, ECCV 2012), with a ridge.

    Fitted on originals and copies together it is copy-aware: it keeps what varies among them.

    Args:
        rows: float32 [n, c]; scaled to length 1 here.
        dimension: d, of the output; at most c and n - 1.
        ridge: in units of the mean eigenvalue.
        power: 1 whitens, 0 only turns (PCA), 0.5 is between.

    Raises:
        FitRefused: too few rows, values that are not finite, constant features.
    """
    rows64 = _checked(rows, dimension)
    mean = rows64.mean(axis=0)
    spectrum, directions = _eigen(np.cov(rows64 - mean, rowvar=False))
    scales = _damped(spectrum, ridge) ** (power / 2)
    projection = directions[:, :dimension] / scales[:dimension]
    return _whitening(mean, projection, spectrum, ridge, len(rows))


def fit_pairs(originals: Floats, copies: Floats, dimension: int, ridge: float = RIDGE) -> Whitening:
    """Whitening learned from (original, copy) pairs: first makes what separates copies equally small in every
    direction, then keeps the directions in which photos differ most (Mikolajczyk and Matas, ICCV 2007;
    Radenovic, Tolias and Chum, arXiv:1711.02512, section 3.3), both with a ridge.

    Args:
        originals: float32 [n, c].
        copies: float32 [n, k, c]; k copies of each original.
        dimension: d, of the output; at most c and n - 1.
        ridge: in units of the mean eigenvalue, of both steps.

    Raises:
        FitRefused: as fit_pca.
    """
    copies = copies.reshape(len(originals), -1, originals.shape[1])
    rows = _checked(
        np.concatenate([originals[:, None], copies], axis=1).reshape(-1, originals.shape[1]), dimension
    )
    by_photo = rows.reshape(len(originals), -1, originals.shape[1])
    apart = (by_photo[:, 1:] - by_photo[:, :1]).reshape(-1, originals.shape[1])
    within, turn = _eigen(apart.T @ apart / len(apart))
    if within[0] <= 0:
        raise FitRefused("the copies equal their originals; make real copies of the photos")
    equalise = turn / np.sqrt(_damped(within, ridge)) @ turn.T
    mean = rows.mean(axis=0)
    spectrum, directions = _eigen(np.cov((rows - mean) @ equalise, rowvar=False))
    scales = np.sqrt(_damped(spectrum, ridge))
    projection = equalise @ (directions[:, :dimension] / scales[:dimension])
    return _whitening(mean, projection, spectrum, ridge, len(rows))


def _checked(rows: Floats, dimension: int) -> _Doubles:
    """The rows at length 1, or the reason why nothing can be learned from them."""
    count, channels = rows.shape
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows).all(axis=1)).sum())
        raise FitRefused(
            f"{bad} of {count} descriptors have values that are not finite; leave those photos out"
        )
    if not 1 <= dimension <= channels:
        raise FitRefused(f"{dimension} dimensions were asked of {channels} channels; ask for 1 to {channels}")
    least = max(LEAST_SAMPLES, dimension + 1)
    if count < least:
        raise FitRefused(
            f"{count} descriptors are too few to fit {dimension} dimensions; give photos and copies for "
            f"{least} or more, or ask for fewer dimensions"
        )
    rows64 = rows.astype(np.float64)
    rows64 /= np.maximum(np.linalg.norm(rows64, axis=1, keepdims=True), 1e-12)
    varying = int((np.ptp(rows64, axis=0) > 1e-6).sum())
    if varying < dimension:
        raise FitRefused(
            f"only {varying} of {channels} channels vary between the photos, {dimension} dimensions were "
            "asked; are the photos all alike?"
        )
    return rows64


def _eigen(symmetric: _Doubles) -> tuple[_Doubles, _Doubles]:
    """Eigenvalues, largest first and none negative, and eigenvectors in columns, their signs fixed."""
    values, vectors = np.linalg.eigh(symmetric)
    vectors = vectors[:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(values))])
    return values[::-1].clip(min=0.0), vectors * signs


def _damped(spectrum: _Doubles, ridge: float) -> _Doubles:
    damped: _Doubles = spectrum + max(ridge, 1e-9) * spectrum.mean()
    return damped


def _whitening(
    mean: _Doubles, projection: _Doubles, spectrum: _Doubles, ridge: float, samples: int
) -> Whitening:
    if not np.isfinite(projection).all():
        raise FitRefused("the fit gave values that are not finite; raise the ridge")
    return Whitening(
        mean.astype(np.float32), projection.astype(np.float32), spectrum.astype(np.float32), ridge, samples
    )
