"""The report for programs: CSV with one row for each photo, and JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from .contents import Photo, Report
from .files import written_whole

COLUMNS = (
    "group",
    "action",
    "id",
    "path",
    "similarity",
    "identical",
    "same_pixels",
    "width",
    "height",
    "bytes",
    "modified",
)

JSON_VERSION = 1
_INTERVAL = ("estimate", "low", "high")


def write_csv(report: Report, path: Path) -> None:
    """Writes one row for each photo of each group, groups in their order, the representative first.

    group: from 1. action: "keep" for the representative, "move" for the others. similarity: to the
    representative, six decimals. identical, same_pixels: "true" or "false". modified: ISO 8601, UTC. Unknown
    values are empty. UTF-8; bytes of a file name that are no UTF-8 are written as they are, so that every
    path can be opened.
    """
    with written_whole(path, errors="surrogateescape") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for number, group in enumerate(report.groups, 1):
            table.writerows(_csv_row(number, photo) for photo in report.photos(group))


def _csv_row(number: int, photo: Photo) -> tuple[object, ...]:
    return (
        number,
        photo.action,
        photo.id,
        "" if photo.path is None else photo.path,
        f"{photo.similarity:.6f}",
        "true" if photo.identical else "false",
        "true" if photo.same_pixels else "false",
        photo.width,
        photo.height,
        photo.bytes,
        photo.modified and photo.modified.isoformat(),
    )


def write_json(report: Report, path: Path) -> None:
    """Writes the whole report as one JSON object, one line for each group.

        {"version": 1,                       grows when the meaning of a field changes
         "created": "2026-01-31T12:00:00+00:00",
         "sources": ["/home/me/Pictures"],
         "recipe": "near_duplicate", "threshold": 0.9, "policy": "largest",
         "against": [],                      folders of the reference, which nothing is moved from
         "precision": null,                  what was asked for in place of a threshold
         "precision_reached": null,          by the calibration, as "recall"
         "recall": {"estimate": 0.999, "low": 0.994, "high": 1.0},  null: every pair was compared
         "counts": {"photos_seen": 9, "kept": 6, "redundant": 2, "unreadable": 1,
                    "groups": 1,
                    "split": 0,              kept out of a group that only a chain of copies joins them to
                    "bytes_freed": 123456},
         "unreadable": [{"path": "...", "reason": "IMAGE_TRUNCATED", "message": "..."}],
         "groups": [{"representative": "<id>",
                     "members": [{"id": "...", "path": "..." or null, "similarity": 1.0, "identical": true,
                                  "same_pixels": true, "width": 640, "height": 480, "bytes": 1234,
                                  "modified": "..."}]}]}

    What is not known is null. The representative is the first member.
    """
    head = {
        "version": JSON_VERSION,
        "created": report.created.isoformat(),
        "sources": list(report.sources),
        "recipe": report.recipe,
        "threshold": report.threshold,
        "policy": report.policy,
        "against": list(report.against),
        "precision": report.precision,
        "precision_reached": report.reached and dict(zip(_INTERVAL, report.reached, strict=True)),
        "recall": None if report.recall is None else dict(zip(_INTERVAL, report.recall, strict=True)),
        "counts": {
            "photos_seen": report.photos_seen,
            "kept": report.kept,
            "redundant": report.redundant,
            "unreadable": len(report.unreadable),
            "groups": len(report.groups),
            "split": report.split,
            "bytes_freed": report.bytes_freed,
        },
        "unreadable": [
            {"path": failure.source, "reason": failure.reason, "message": failure.message}
            for failure in report.unreadable
        ],
    }
    with written_whole(path) as file:
        file.write(json.dumps(head)[:-1] + ', "groups": [')
        for number, group in enumerate(report.groups):
            members = [_json_member(photo) for photo in report.photos(group)]
            line = {"representative": group.representative_id, "members": members}
            file.write((",\n" if number else "\n") + json.dumps(line))
        file.write("\n]}\n")


def _json_member(photo: Photo) -> dict[str, Any]:
    return {
        "id": photo.id,
        "path": None if photo.path is None else str(photo.path),
        "similarity": round(photo.similarity, 6),
        "identical": photo.identical,
        "same_pixels": photo.same_pixels,
        "width": photo.width,
        "height": photo.height,
        "bytes": photo.bytes,
        "modified": photo.modified and photo.modified.isoformat(),
    }
