"""Heads: pooling, joining and projecting as nodes of an extractor's own graph.

So one module maps images to descriptors, and is exported as one graph.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn

from .errors import RequestInvalid, did_you_mean
from .pooling import join, pool
from .recipe import Tap


@dataclass(frozen=True)
class Head:
    """One descriptor to compute from an extractor's outputs.

    Attributes:
        taps: keys of the extractor (as nodes) and how each is pooled; joined in this order, each part and the
            whole scaled to length 1.
        projection: applied to the whole, [n, d] -> [n, d'], which is then scaled to length 1 again.
    """

    taps: tuple[Tap, ...]
    projection: nn.Linear | None = None


def add_heads(extractor: nn.Module, heads: Mapping[str, Head]) -> fx.GraphModule:
    """Returns a module that yields {key: float [n, d]}, a descriptor for each head, instead of feature maps.

    It is for inference or training in the mode that `extractor` is in, and shares its weights.

    Raises:
        RequestInvalid: no heads, a tap that the extractor does not yield, or an extractor without a graph.
    """
    if not isinstance(extractor, fx.GraphModule):
        raise RequestInvalid(f"heads need an extractor with a graph, and {type(extractor).__name__} has none")
    if not heads:
        raise RequestInvalid("no heads are given; name at least one")
    module = fx.GraphModule(extractor, copy.deepcopy(extractor.graph))
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    values = _outputs(output)
    with module.graph.inserting_before(output):
        described = {key: _append(module, key, head, values) for key, head in heads.items()}
    output.args = (described,)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module.train(extractor.training)


def _outputs(output: fx.Node) -> Mapping[str, fx.Node]:
    values = output.args[0]
    if not isinstance(values, Mapping):
        raise RequestInvalid("heads need an extractor that yields {key: value}")
    return values  # type: ignore[return-value]


def _append(module: fx.GraphModule, key: str, head: Head, values: Mapping[str, fx.Node]) -> fx.Node:
    graph = module.graph
    for tap in head.taps:
        if tap.node not in values:
            near = did_you_mean(tap.node, values)
            raise RequestInvalid(f"head {key!r}: the extractor does not yield {tap.node!r}.{near}")
    parts = [graph.call_function(pool, (values[tap.node], tap.pooling, tap.p)) for tap in head.taps]
    joined = graph.call_function(join, (parts,))
    if head.projection is None:
        return joined
    name = f"head_{len(dict(module.named_children()))}"
    module.add_submodule(name, head.projection)
    return graph.call_function(F.normalize, (graph.call_module(name, (joined,)),), {"dim": 1})


def example_images(height: int, width: int, n: int = 2) -> torch.Tensor:
    """Made images for probing: float32 [n, 3, height, width], smooth, all different, the same everywhere."""
    y, x = torch.meshgrid(torch.linspace(0, 9, height), torch.linspace(0, 7, width), indexing="ij")
    waves = [torch.sin(x * (1 + i % 3) + y * (1 + i // 3) + i) for i in range(3 * n)]
    return torch.stack(waves).view(n, 3, height, width)
