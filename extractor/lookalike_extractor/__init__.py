"""Any backbone into descriptors.

The names below are loaded at first use: torch takes seconds to import, and who only needs the errors or the
recipes (a command line that reads its settings, say) should not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lookalike_extractor.capture.hooks import HookedExtractor
    from lookalike_extractor.capture.report import CaptureReport, Rejection
    from lookalike_extractor.extraction import create_feature_extractor, get_graph_node_names
    from lookalike_extractor.extractor import FeatureExtractor
    from lookalike_extractor.nodes import NodeInfo, describe_nodes
    from lookalike_extractor.requests import NodeNameWarning
    from lookalike_extractor.selectors import select_nodes
    from lookalike_extractor.verification import NotVerifiedWarning, Verification

__all__ = [
    "CaptureReport",
    "FeatureExtractor",
    "HookedExtractor",
    "NodeInfo",
    "NodeNameWarning",
    "NotVerifiedWarning",
    "Rejection",
    "Verification",
    "create_feature_extractor",
    "describe_nodes",
    "get_graph_node_names",
    "select_nodes",
]

_HOMES = {
    "CaptureReport": "capture.report",
    "FeatureExtractor": "extractor",
    "HookedExtractor": "capture.hooks",
    "NodeInfo": "nodes",
    "NodeNameWarning": "requests",
    "NotVerifiedWarning": "verification",
    "Rejection": "capture.report",
    "Verification": "verification",
    "create_feature_extractor": "extraction",
    "describe_nodes": "nodes",
    "get_graph_node_names": "extraction",
    "select_nodes": "selectors",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
