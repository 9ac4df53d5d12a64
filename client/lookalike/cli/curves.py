"""A calibration as one HTML file that needs nothing else: score histograms, precision against recall."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from lookalike.records import Calibration, Threshold

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _EDGE = 560, 300, 48, 36, 12
_BINS = 60
_MOST_POINTS = 400
_SAME, _DIFFERENT = "#1b7f79", "#c2571a"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { padding: .25rem .9rem; text-align: right; }
th { border-bottom: 1px solid #999; } figure { margin: 1.5rem 0; } figcaption { color: #555; }
svg { max-width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: #555; }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #ddd; } svg text { fill: #aaa; } }
"""


def page(learned: Calibration, scores: Sequence[float], same: Sequence[bool]) -> str:
    """The file's text, of a calibration and the pairs that it was learned from."""
    values, truth = np.asarray(scores, float), np.asarray(same, bool)
    title = f"Calibration of {escape(learned.collection)}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{learned.same_pairs:,} pairs of the same picture, "
        f"{learned.different_pairs:,} of different ones, {learned.missed_pairs:,} not found; "
        f"{learned.item_count:,} items; {learned.created:%Y-%m-%d %H:%M} UTC. Intervals are of 95 %.</p>"
        f"{_table(learned.thresholds)}"
        f"<figure>{_histograms(values, truth, learned.thresholds)}<figcaption>Scores of pairs of "
        f'<b style="color:{_SAME}">the same picture</b> and of <b style="color:{_DIFFERENT}">different ones'
        "</b>, each as a share of its kind; dashed lines are the thresholds.</figcaption></figure>"
        f"<figure>{_curve(values, truth, learned)}<figcaption>Precision against recall as the threshold "
        "falls; dots are the thresholds.</figcaption></figure></html>\n"
    )


def _table(thresholds: Sequence[Threshold]) -> str:
    rows = "".join(
        f"<tr><td>{t.precision:g}<td>{_number(t.min_score)}<td>{_number(t.min_score_low)} to "
        f"{_number(t.min_score_high)}<td>{t.reached:.3f}<td>{t.reached_low:.3f} to {t.reached_high:.3f}"
        f"<td>{t.recall:.3f}</tr>"
        for t in thresholds
    )
    head = "<tr><th>precision<th>least score<th>interval<th>reached<th>interval<th>recall</tr>"
    return f"<table>{head}{rows}</table>"


def _histograms(scores: NDArray[np.float64], same: NDArray[np.bool_], thresholds: Sequence[Threshold]) -> str:
    low, high = float(scores.min()), max(float(scores.max()), float(scores.min()) + 1e-6)
    edges = np.linspace(low, high, _BINS + 1)
    shares = [np.histogram(scores[kind], edges)[0] / max(1, kind.sum()) for kind in (~same, same)]
    top = max(float(max(share.max() for share in shares)), 1e-9)
    bars = "".join(
        f'<rect x="{_x(edges[i], low, high):.1f}" y="{_y(share[i] / top):.1f}" '
        f'width="{(_WIDTH - _LEFT - _EDGE) / _BINS:.1f}" height="{_y(0) - _y(share[i] / top):.1f}" '
        f'fill="{colour}" fill-opacity=".6"/>'
        for share, colour in zip(shares, (_DIFFERENT, _SAME), strict=True)
        for i in range(_BINS)
        if share[i]
    )
    lines = "".join(
        _marked(_x(t.min_score, low, high), 12 * i, f"{t.precision:g}")
        for i, t in enumerate(thresholds)
        if t.min_score is not None and low <= t.min_score <= high
    )
    return _plot(bars + lines, (low, high), (0, top), "score", "share")


def _marked(x: float, down: float, text: str) -> str:
    """A dashed line from top to bottom with a word beside it."""
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_y(1):.1f}" y2="{_y(0):.1f}" stroke="#777" '
        f'stroke-dasharray="4 3"/><text x="{x + 3:.1f}" y="{_y(1) + 10 + down:.1f}">{text}</text>'
    )


def _curve(scores: NDArray[np.float64], same: NDArray[np.bool_], learned: Calibration) -> str:
    truth = same[np.argsort(-scores, kind="stable")]
    found = np.cumsum(truth)
    recall = found / max(1, int(same.sum()) + learned.missed_pairs)
    precision = found / np.arange(1, len(truth) + 1)
    kept = np.unique(np.linspace(0, len(truth) - 1, _MOST_POINTS).astype(int))
    floor = float(np.floor(10 * precision[kept].min()) / 10)
    points = " ".join(f"{_x(recall[i], 0, 1):.1f},{_y(_part(precision[i], floor)):.1f}" for i in kept)
    dots = "".join(
        f'<circle cx="{_x(t.recall, 0, 1):.1f}" cy="{_y(_part(t.reached, floor)):.1f}" r="4" fill="{_SAME}">'
        f"<title>{t.precision:g} at {_number(t.min_score)}</title></circle>"
        for t in learned.thresholds
        if t.min_score is not None
    )
    line = f'<polyline points="{points}" fill="none" stroke="{_SAME}" stroke-width="2"/>'
    return _plot(line + dots, (0, 1), (floor, 1), "recall", "precision")


def _plot(
    content: str, across: tuple[float, float], up: tuple[float, float], x_name: str, y_name: str
) -> str:
    """Axes with five marks each, around the content."""
    marks = "".join(
        f'<text x="{_x(i, 0, 4):.1f}" y="{_y(0) + 14:.1f}" text-anchor="middle">'
        f"{across[0] + (across[1] - across[0]) * i / 4:.2f}</text>"
        f'<text x="{_LEFT - 5}" y="{_y(i / 4) + 4:.1f}" text-anchor="end">'
        f"{up[0] + (up[1] - up[0]) * i / 4:.2f}</text>"
        for i in range(5)
    )
    axes = (
        f'<path d="M{_LEFT} {_y(1):.1f}V{_y(0):.1f}H{_WIDTH - _EDGE}" fill="none" stroke="#999"/>'
        f'<text x="{_x(2, 0, 4):.1f}" y="{_HEIGHT - 4}" text-anchor="middle">{x_name}</text>'
        f'<text x="{_LEFT + 6}" y="{_y(1) + 2:.1f}">{y_name}</text>'
    )
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img">{content}{axes}{marks}</svg>'


def _x(value: float, low: float, high: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _EDGE) * (value - low) / (high - low)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _EDGE) * share


def _part(value: float, floor: float) -> float:
    return (value - floor) / max(1e-9, 1 - floor)


def _number(score: float | None) -> str:
    return "none" if score is None else f"{score:.4f}"
