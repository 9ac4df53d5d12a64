"""`lookalike search`: the items nearest to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lookalike.cli.connection import connect, place_options
from lookalike.cli.hints import hint_at_attributes
from lookalike.cli.output import print_json, print_table, say, shown

if TYPE_CHECKING:
    from lookalike.records import Explanation, Hits


@click.command("search", short_help="Find the items nearest to a picture.")
@click.argument("image", required=False, type=click.Path(path_type=Path))
@click.option("--id", "item_id", metavar="ID", help="Search by an item of the collection.")
@click.option("--vector", metavar="FILE.npy", type=click.Path(path_type=Path), help="Search by a descriptor.")
@click.option("-c", "--collection", required=True, metavar="NAME")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Most hits.")
@click.option("--where", default="", metavar="FILTER", help='Only items that fit, as "price < 100".')
@click.option("--min-score", type=float, help="Only hits at least this similar, -1 to 1 without --normalize.")
@click.option("--min-precision", type=float, help="Only hits this sure, as 0.95; see `lookalike calibrate`.")
@click.option("--range", "every", is_flag=True, help="All hits over --min-score or --min-precision.")
@click.option("--group-by", default="", metavar="ATTRIBUTE", help="Of items alike in it only the nearest.")
@click.option(
    "--views",
    type=click.Choice(["pasted", "grid"]),
    help="Look for pictures inside IMAGE too, or at nine parts of it.",
)
@click.option("--normalize", is_flag=True, help="Make scores of different queries comparable.")
@click.option(
    "--rerank",
    type=click.Choice(["query_expansion", "k_reciprocal"]),
    help="Order the hits by what their neighbours say.",
)
@click.option("--exact", is_flag=True, help="Compare with every item, index or not.")
@click.option("--explain", is_flag=True, help="Tell how the search went, and how long it took.")
@click.option("--json", "as_json", is_flag=True, help="Print the hits as JSON.")
@place_options
def command(
    image: Path | None,
    item_id: str | None,
    vector: Path | None,
    collection: str,
    k: int,
    where: str,
    min_score: float | None,
    min_precision: float | None,
    every: bool,
    group_by: str,
    views: str | None,
    normalize: bool,
    rerank: str | None,
    exact: bool,
    explain: bool,
    as_json: bool,
    server: str | None,
    data: Path | None,
) -> None:
    """Finds the items nearest to IMAGE, to an item or to a descriptor."""
    if sum(query is not None for query in (image, item_id, vector)) != 1:
        raise click.UsageError("give one of IMAGE, --id and --vector")
    if min_score is not None and not (normalize or -1 <= min_score <= 1):
        raise click.UsageError(f"--min-score {min_score:g}: scores go from -1 to 1")
    row = None if vector is None else _read_vector(vector)
    if image is not None and not image.is_file():
        what = "is a folder; give one photo" if image.is_dir() else "is no file"
        raise click.UsageError(f"{shown(image)!r} {what}")
    with connect(server, data) as client:
        shelf = client.collection(collection)
        hits = shelf.search(
            image,
            vector=row,
            id=item_id and shown(item_id),
            k=10_000 if every and _is_default("k") else k,
            min_score=min_score,
            min_precision=min_precision,
            where=where,
            range=every,
            group_by=group_by,
            views=views or "",
            normalize=normalize,
            rerank=rerank or "",
            exact=exact,
            explain=explain,
        )
        if where and not hits:
            hint_at_attributes(shelf, where)
    if as_json:
        found = [{"id": hit.id, "score": hit.score, "attributes": hit.attributes} for hit in hits]
        print_json({"collection": collection, "hits": found, "more": hits.more})
    else:
        _show(hits)
    if hits.explanation is not None:
        _explain(hits.explanation)


def _read_vector(path: Path) -> Any:
    import numpy as np

    try:
        vector = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise click.UsageError(f"there is no file {str(path)!r}") from None
    except (OSError, ValueError):
        raise click.UsageError(f"{path} is no .npy file of numbers") from None
    if not isinstance(vector, np.ndarray) or vector.squeeze().ndim != 1:
        shape = getattr(vector, "shape", "an archive")
        raise click.UsageError(f"{path} holds {shape}; a search takes one vector, [dimension]")
    return vector.squeeze()


def _show(hits: Hits) -> None:
    if not hits:
        say("nothing found")
        return
    rows = [[str(rank), f"{hit.score:.4f}", hit.id] for rank, hit in enumerate(hits, 1)]
    print_table(["", "score", "id"], rows)
    if hits.more:
        say("there are more")


def _explain(how: Explanation) -> None:
    say(f"{how.plan}: {how.compared:,} of {how.items:,} items compared, {how.fitting:,} fit")
    parts = {
        "query": how.queries_seconds,
        "waiting": how.wait_seconds,
        "filter": how.filter_seconds,
        "comparing": how.scan_seconds,
        "attributes": how.rows_seconds,
    }
    say(", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in parts.items()))


def _is_default(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is ParameterSource.DEFAULT
