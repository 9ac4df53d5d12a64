"""Batch norm folded into the convolution before it: in eval mode both are linear, so one does both' work."""

from __future__ import annotations

import copy
from collections import Counter
from typing import cast

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(extractor: nn.Module) -> nn.Module:
    """Returns a copy for inference with each Conv2d and BatchNorm2d pair made one convolution.

    A convolution whose own output is asked for, or used by anything else, is left as it is. `extractor` must
    be in eval mode; it and its modules are not changed. Weights that are not folded are shared with it. An
    extractor without a graph comes back as it is.
    """
    if not isinstance(extractor, fx.GraphModule):
        return extractor
    folded = fx.GraphModule(extractor, copy.deepcopy(extractor.graph))
    calls = Counter(node.target for node in folded.graph.nodes if node.op == "call_module")
    for norm in list(folded.graph.nodes):
        if _foldable(folded, norm, calls):
            _fold(folded, norm.args[0], norm)
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded.eval()


def _foldable(module: fx.GraphModule, norm: fx.Node, calls: Counter[fx.node.Target]) -> bool:
    """True when `norm` is a batch norm, and the only use of a convolution; both called once."""
    if not _calls(module, norm, nn.BatchNorm2d) or not isinstance(norm.args[0], fx.Node):
        return False
    conv = norm.args[0]
    alone = len(conv.users) == 1 and calls[conv.target] == 1 and calls[norm.target] == 1
    tracked = _called(module, norm).running_mean is not None
    return _calls(module, conv, nn.Conv2d) and alone and tracked


def _fold(module: fx.GraphModule, conv: fx.Node, norm: fx.Node) -> None:
    fused = fuse_conv_bn_eval(
        cast(nn.Conv2d, _called(module, conv)), cast(nn.BatchNorm2d, _called(module, norm))
    )
    module.set_submodule(str(conv.target), fused)
    norm.replace_all_uses_with(conv)
    module.graph.erase_node(norm)


def _calls(module: fx.GraphModule, node: fx.Node, kind: type[nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(_called(module, node), kind)


def _called(module: fx.GraphModule, node: fx.Node) -> nn.Module:
    return module.get_submodule(str(node.target))
