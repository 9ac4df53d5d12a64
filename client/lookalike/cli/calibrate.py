"""`lookalike calibrate`: which score means which precision in a collection."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.cli.connection import connect, place_options
from lookalike.cli.meter import meter
from lookalike.cli.output import (
    check_place,
    interruptible,
    plural,
    print_json,
    print_table,
    say,
    shown,
    writing,
)

if TYPE_CHECKING:
    from lookalike import Client, Collection
    from lookalike.cli.scoring import Scored
    from lookalike.records import Calibration, Threshold


_BACKGROUND, _LEAST_BACKGROUND = 120, 10


def _precisions(_: click.Context, __: click.Parameter, text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < 1 for value in values):
        raise click.BadParameter(f"{text!r} is no list of numbers between 0 and 1, as 0.9,0.95,0.99")
    return values


@click.command("calibrate", short_help="Learn which score means which precision.")
@click.option("-c", "--collection", "name", required=True, metavar="NAME")
@click.option(
    "--precision",
    default="0.9,0.95,0.99",
    show_default=True,
    metavar="LIST",
    callback=_precisions,
    help="To find thresholds for.",
)
@click.option(
    "--pairs",
    metavar="FILE.csv",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Learn from these pairs of items: id, id, and 1 for the same picture or 0.",
)
@click.option("--photos", default=200, show_default=True, type=click.IntRange(13), help="To make copies of.")
@click.option(
    "--copies", default=4, show_default=True, type=click.IntRange(1, 50), help="Made of each photo."
)
@click.option(
    "--background",
    metavar="FOLDER",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="First keep up to 120 photos that match nothing in the collection, for normalised scores.",
)
@click.option("--normalize", is_flag=True, help="Learn thresholds of searches with --normalize instead.")
@click.option("--seed", default=0, show_default=True, help="Of the photos and copies.")
@click.option(
    "-o",
    "--output",
    default=Path("lookalike-calibration.html"),
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Histograms of the scores, and precision against recall.",
)
@click.option("--show", is_flag=True, help="Learn nothing: print what is known, and the scores in force now.")
@click.option("--json", "as_json", is_flag=True, help="Print the thresholds as JSON.")
@place_options
def command(
    name: str,
    precision: list[float],
    pairs: Path | None,
    photos: int,
    copies: int,
    background: Path | None,
    normalize: bool,
    seed: int,
    output: Path,
    show: bool,
    as_json: bool,
    **place: Any,
) -> None:
    """Learns which score means which precision in a collection, and keeps it there for searches
    (--min-precision) and duplicates.

    Without --pairs it makes copies of the collection's own photos, with edits that no recipe was fitted with,
    and searches them, and every second photo as it is. The photos' files must be on this machine, as
    `lookalike index` left them. A collection that grows needs no new calibration at once: its scores are set
    higher as it does, and --show tells which are in force.
    """
    from lookalike.cli import curves, scoring

    if show and (pairs or background):
        raise click.UsageError("--show learns nothing; leave out --pairs and --background")
    if show:
        with connect(**place) as client:
            _show(client.collection(name).calibration(normalized=normalize), as_json)
        return
    if pairs is not None and normalize:
        raise click.UsageError("labelled pairs have no queries whose scores could be normalised")
    check_place(output)
    with connect(**place) as client, interruptible("nothing was kept"):
        collection = client.collection(name)
        if background is not None:
            _set_background(client, collection, background, seed)
        if pairs is not None:
            scored = scoring.of_labels(collection, pairs)
        else:
            scored = _of_copies(client, collection, photos, copies, seed, normalize)
        learned = collection.calibrate(
            scored.scores,
            scored.same,
            scored.pictures,
            precisions=precision,
            missed=scored.missed,
            normalized=normalize,
        )
    with writing(output):
        output.write_text(curves.page(learned, scored.scores, scored.same), encoding="utf-8")
    _tell(scored)
    _show(learned, as_json, output)


def _set_background(client: Client, collection: Collection, folder: Path, seed: int) -> None:
    import numpy as np

    from lookalike.cli.photos import find_photos

    paths = [photo.path for photo in find_photos([folder]).photos]
    chosen = random.Random(seed).sample(paths, min(_BACKGROUND, len(paths)))
    recipe = collection.info().recipe
    described = [result.descriptor for result in client.embed_many(chosen, recipe, on_error="report")]
    rows = [row for row in described if row is not None]
    if len(rows) < _LEAST_BACKGROUND:
        raise click.ClickException(
            f"{shown(folder)} has {plural(len(rows), 'readable photo')}; a background takes "
            f"{_LEAST_BACKGROUND} at least, better {_BACKGROUND}"
        )
    collection.set_background(np.stack(rows))
    say(f"kept {plural(len(rows), 'photo')} as the background of {collection.name!r}")


def _of_copies(
    client: Client, collection: Collection, photos: int, copies: int, seed: int, normalize: bool
) -> Scored:
    from lookalike.cli import scoring

    try:
        import lookalike_extractor.unseen  # noqa: F401 - asked for before photos are looked at
    except ImportError as error:
        raise click.ClickException(f"{error}; run: pip install 'lookalike[extractor]'") from error
    space = collection.info().space.id
    thresholds = [r.duplicate_threshold for r in client.recipes() if r.space.id == space]
    items, same_file = scoring.photos_of(collection, photos, seed)
    queries = scoring.query_count(len(items), copies)
    with meter("calibrating", queries, "copies") as advance:
        return scoring.of_copies(
            collection,
            items,
            same_file,
            copies=copies,
            threshold=thresholds[0] if thresholds else 1.0,
            seed=seed,
            normalize=normalize,
            advance=lambda done: advance(done, queries),
        )


def _tell(scored: Scored) -> None:
    if scored.unreadable:
        say(f"{plural(len(scored.unreadable), 'photo')} could not be read and had no copies")
    if scored.undecided:
        say(
            f"left out {plural(scored.undecided, 'pair')} with items that look like copies of the photo "
            "themselves; find and remove duplicates first, or label pairs, to have them counted"
        )


def _show(learned: Calibration, as_json: bool, report: Path | None = None) -> None:
    if as_json:
        print_json(
            {
                "collection": learned.collection,
                "item_count": learned.item_count,
                "current_item_count": learned.current_item_count,
                "thresholds": list(map(_plain, learned.thresholds)),
            }
            | ({"report": shown(report)} if report else {})
        )
        return
    say(
        f"learned from {plural(learned.same_pairs, 'pair')} of the same picture and "
        f"{learned.different_pairs:,} of different ones among {plural(learned.item_count, 'item')}; "
        f"{learned.collection!r} holds {learned.current_item_count:,} now"
    )
    rows = [
        [
            f"{t.precision:g}",
            _score(t.current_score),
            _score(t.min_score),
            f"{_score(t.min_score_low)} to {_score(t.min_score_high)}",
            f"{t.reached:.3f}",
            f"{t.reached_low:.3f} to {t.reached_high:.3f}",
            f"{t.recall:.3f}",
        ]
        for t in learned.thresholds
    ]
    print_table(["precision", "in force", "as learned", "95 %", "reached", "95 %", "recall"], rows)
    if report:
        click.echo(f"report: {shown(report.absolute())}")


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _plain(threshold: Threshold) -> dict[str, float | None]:
    return {name: getattr(threshold, name) for name in threshold.__slots__}
