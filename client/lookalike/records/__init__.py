"""What calls return: frozen records that hold no connection, so they may be kept, compared and pickled."""

from __future__ import annotations

from lookalike.records.duplicates import (
    DuplicateCheck,
    DuplicateGroup,
    DuplicateJob,
    DuplicateMatch,
    DuplicateMember,
    share_interval,
)
from lookalike.records.found import (
    Calibration,
    Explanation,
    Hit,
    Hits,
    Threshold,
)
from lookalike.records.record import (
    Attributes,
    Record,
)
from lookalike.records.server import (
    BackboneInfo,
    EmbeddingSpace,
    Limits,
    NodeInfo,
    RecipeInfo,
    ServerInfo,
    TapInfo,
)
from lookalike.records.stored import (
    AddReport,
    CollectionInfo,
    EmbedResult,
    Failure,
    IndexEstimate,
    IndexInfo,
    Item,
    ReembedReport,
    VerifyReport,
)

__all__ = [
    "AddReport",
    "Attributes",
    "BackboneInfo",
    "Calibration",
    "CollectionInfo",
    "DuplicateCheck",
    "DuplicateGroup",
    "DuplicateJob",
    "DuplicateMatch",
    "DuplicateMember",
    "EmbedResult",
    "EmbeddingSpace",
    "Explanation",
    "Failure",
    "Hit",
    "Hits",
    "IndexEstimate",
    "IndexInfo",
    "Item",
    "Limits",
    "NodeInfo",
    "RecipeInfo",
    "Record",
    "ReembedReport",
    "ServerInfo",
    "TapInfo",
    "Threshold",
    "VerifyReport",
    "share_interval",
]
