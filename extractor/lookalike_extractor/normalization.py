"""Score normalisation: a query that looks like everything must look more like its match.

A query's similarities to background photos, which match nothing, tell how easily it is taken for something
else. Subtracting them makes scores of different queries comparable, so one threshold fits all. It costs one
dimension and works in any inner-product index: [q, -bias] . [g, 1] = q . g - bias.

Source: Pizzi et al., A Self-Supervised Descriptor for Image Copy Detection, arXiv:2202.10261, eq. 8.
"""

from __future__ import annotations

import numpy as np

from .whitening import Floats

TOP = 3


def query_bias(queries: Floats, background: Floats, top: int = TOP, beta: float = 1.0) -> Floats:
    """beta times the mean of each query's `top` largest similarities to the background.

    Args:
        queries: [q, d], rows of length 1.
        background: [b, d], b >= top, of photos that are no copies of what is searched.

    Returns:
        float32 [q].
    """
    similarities = queries @ background.T
    largest = np.partition(similarities, -top, axis=1)[:, -top:]
    bias: Floats = (beta * largest.mean(axis=1)).astype(np.float32)
    return bias


def extend_queries(queries: Floats, bias: Floats) -> Floats:
    """[q, d] and [q] -> [q, d + 1]."""
    return np.concatenate([queries, -bias[:, None]], axis=1)


def extend_gallery(gallery: Floats) -> Floats:
    """[n, d] -> [n, d + 1], with ones."""
    return np.concatenate([gallery, np.ones((len(gallery), 1), gallery.dtype)], axis=1)
