"""Any backbone into descriptors."""

from lookalike_extractor.capture.report import CaptureReport, Rejection
from lookalike_extractor.extraction import create_feature_extractor, get_graph_node_names
from lookalike_extractor.extractor import FeatureExtractor
from lookalike_extractor.nodes import NodeInfo, describe_nodes
from lookalike_extractor.requests import NodeNameWarning

__all__ = [
    "CaptureReport",
    "FeatureExtractor",
    "NodeInfo",
    "NodeNameWarning",
    "Rejection",
    "create_feature_extractor",
    "describe_nodes",
    "get_graph_node_names",
]
