"""Any backbone into descriptors.

The names below are loaded at first use: torch takes seconds to import, and who only needs the errors or the
recipes (a command line that reads its settings, say) should not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lookalike_extractor.capture.hooks import HookedExtractor
    from lookalike_extractor.capture.report import CaptureReport, Rejection
    from lookalike_extractor.exporting import export_aot, export_onnx, export_openvino
    from lookalike_extractor.extraction import create_feature_extractor, get_graph_node_names
    from lookalike_extractor.extractor import FeatureExtractor
    from lookalike_extractor.feature_maps import inspect_image
    from lookalike_extractor.heads import Head, add_heads
    from lookalike_extractor.nodes import NodeInfo, describe_nodes
    from lookalike_extractor.optimization import Optimized, available_runtimes, optimize
    from lookalike_extractor.requests import NodeNameWarning
    from lookalike_extractor.runtimes import AotPackage, OnnxRuntime, OpenVino
    from lookalike_extractor.selectors import select_nodes
    from lookalike_extractor.spec import ExtractorSpec, load_spec
    from lookalike_extractor.verification import NotVerifiedWarning, Verification

__all__ = [
    "AotPackage",
    "CaptureReport",
    "ExtractorSpec",
    "FeatureExtractor",
    "Head",
    "HookedExtractor",
    "NodeInfo",
    "NodeNameWarning",
    "NotVerifiedWarning",
    "OnnxRuntime",
    "OpenVino",
    "Optimized",
    "Rejection",
    "Verification",
    "add_heads",
    "available_runtimes",
    "create_feature_extractor",
    "describe_nodes",
    "export_aot",
    "export_onnx",
    "export_openvino",
    "get_graph_node_names",
    "inspect_image",
    "load_spec",
    "optimize",
    "select_nodes",
]

_HOMES = {
    "AotPackage": "runtimes",
    "CaptureReport": "capture.report",
    "ExtractorSpec": "spec",
    "FeatureExtractor": "extractor",
    "Head": "heads",
    "HookedExtractor": "capture.hooks",
    "NodeInfo": "nodes",
    "NodeNameWarning": "requests",
    "NotVerifiedWarning": "verification",
    "OnnxRuntime": "runtimes",
    "OpenVino": "runtimes",
    "Optimized": "optimization",
    "Rejection": "capture.report",
    "Verification": "verification",
    "add_heads": "heads",
    "available_runtimes": "optimization",
    "create_feature_extractor": "extraction",
    "describe_nodes": "nodes",
    "export_aot": "exporting",
    "export_onnx": "exporting",
    "export_openvino": "exporting",
    "get_graph_node_names": "extraction",
    "inspect_image": "feature_maps",
    "load_spec": "spec",
    "optimize": "optimization",
    "select_nodes": "selectors",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
