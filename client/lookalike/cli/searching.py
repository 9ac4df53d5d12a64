"""A search for duplicates among files: which collection holds them, which job looks, what the report says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.cli.indexing import Outcome, bring_up_to_date
from lookalike.cli.meter import meter
from lookalike.cli.output import say, shown
from lookalike.cli.photos import Found, find_photos
from lookalike.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from lookalike import Client, Collection
    from lookalike.records import DuplicateGroup, DuplicateJob, RecipeInfo
    from lookalike.report import Report

_REFERENCE = "reference = true"  # an attribute of the photos of --against


@dataclass(frozen=True)
class Wish:
    """How to search, as the user said it."""

    folders: Sequence[Path]
    against: Sequence[Path]
    recipe: str
    threshold: float | None
    precision: float | None
    policy: str
    new_only: bool


def find(wish: Wish) -> Found:
    """The photos in all folders; those of `against` are the reference, wherever else they are found too."""
    found = find_photos(wish.folders)
    sharp = wish.policy == "sharpest"
    if not wish.against:
        return Found([replace(photo, sharp=sharp) for photo in found.photos], found.unreadable)
    reference = find_photos(wish.against)
    photos = {photo.path: photo for photo in found.photos}
    photos |= {photo.path: replace(photo, reference=True) for photo in reference.photos}
    unreadable = {failure.source: failure for failure in [*found.unreadable, *reference.unreadable]}
    return Found([replace(photos[path], sharp=sharp) for path in sorted(photos)], [*unreadable.values()])


def search(client: Client, found: Found, wish: Wish, machine: str) -> tuple[Outcome, Report]:
    """Brings the photos' collection up to date and looks for copies.

    machine: the name of this one, "" when the engine is our own.
    """
    recipe = _recipe(client, wish.recipe)
    collection = client.create_collection(_collection_name(wish, recipe, machine), recipe.name, exist_ok=True)
    since = collection.info().sequence if wish.new_only else 0
    outcome = bring_up_to_date(collection, found.photos, forget_others=True)
    job = _job(client, collection, wish, recipe, since)
    with meter("comparing", outcome.added + outcome.unchanged, "photos") as advance:
        groups = client.jobs.finish(job.id, lambda now: advance(now.items_done, now.items_total))
    report = _report(wish, found, outcome, groups, client.jobs.get(job.id), recipe)
    return outcome, replace(report, reached=_reached(collection, job))


def _job(client: Client, collection: Collection, wish: Wish, recipe: RecipeInfo, since: int) -> DuplicateJob:
    """A new job, or one that looks for the same and was left behind by a command that was killed."""
    threshold = wish.threshold
    if threshold is None and wish.precision is None:
        threshold = recipe.duplicate_threshold
    policy, reference = wish.policy.replace("-", "_"), _REFERENCE if wish.against else ""
    sequence = collection.info().sequence
    for job in client.jobs.all(collection.name):
        wanted = (job.policy, job.reference, job.since_sequence, job.precision) == (
            policy,
            reference,
            since,
            wish.precision,
        )
        current = job.state in ("pending", "running") and job.sequence in (0, sequence)
        if wanted and current and threshold in (None, job.threshold):
            return job
    try:
        return collection.start_duplicate_job(
            threshold, precision=wish.precision, policy=policy, since_sequence=since, reference=reference
        )
    except FailedPrecondition as error:
        if error.reason == "NOT_CALIBRATED":
            say(f"these photos are in collection {collection.name}")
        raise


def _reached(collection: Collection, job: DuplicateJob) -> tuple[float, float, float] | None:
    """The precision, with its interval, that the collection's calibration knows for the job's threshold."""
    try:
        known = collection.calibration().thresholds
    except FailedPrecondition:  # nobody has calibrated it
        return None
    below = [t for t in known if t.current_score is not None and t.current_score <= job.threshold + 1e-6]
    if not below:
        return None
    nearest = max(below, key=lambda t: (t.current_score, t.precision))
    return nearest.reached, nearest.reached_low, nearest.reached_high


def _recipe(client: Client, name: str) -> RecipeInfo:
    """The recipe of that name; the first when the name is empty."""
    recipes = client.recipes()
    for recipe in recipes:
        if name in ("", recipe.name):
            return recipe
    known = ", ".join(recipe.name for recipe in recipes)
    raise NotFound(f"there is no recipe {name!r}; there are {known}", "RECIPE_UNKNOWN")


def _collection_name(wish: Wish, recipe: RecipeInfo, machine: str) -> str:
    """The same folders and the same embedding space find their collection again."""
    roots = sorted({shown(folder.resolve()) for folder in wish.folders})
    if wish.against:
        roots += ["", *sorted({shown(folder.resolve()) for folder in wish.against})]
    return "photos-" + hashlib.sha256("\0".join([recipe.space.id, machine, *roots]).encode()).hexdigest()[:16]


def _report(
    wish: Wish,
    found: Found,
    outcome: Outcome,
    groups: Sequence[DuplicateGroup],
    job: DuplicateJob,
    recipe: RecipeInfo,
) -> Report:
    from lookalike.report import Report, same_pixels

    paths = {photo.id: photo.path for photo in found.photos}
    return Report(
        groups,
        paths,
        photos_seen=len(found.photos) + len(found.unreadable),
        unreadable=[*found.unreadable, *outcome.failed],
        same_pixels=same_pixels(groups, paths),
        sources=[shown(folder) for folder in wish.folders],
        against=[shown(folder) for folder in wish.against],
        recipe=recipe.name,
        threshold=job.threshold,
        policy=wish.policy,
        precision=job.precision,
        split=job.split_count,
        sampled=(job.sampled_pairs_found, job.sampled_pairs) if job.sampled_pairs else None,
    )
