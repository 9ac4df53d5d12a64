"""Finding node names: by pattern, by kind of operation, and by stride."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from torch import nn

from lookalike_extractor.errors import NodeUnknown, did_you_mean
from lookalike_extractor.naming import Reading
from lookalike_extractor.nodes import NodeInfo, describe_nodes


def select_nodes(
    model: nn.Module,
    *patterns: str,
    kind: str | type[nn.Module] | None = None,
    stride: int | None = None,
    example_inputs: Any = None,
    names: Reading = "exact",
) -> list[str]:
    """The names of the nodes of `model` in eval mode that fit, in the order of execution.

    Args:
        patterns: exact names, paths of modules (`layer4` stands for the last node below it), or globs
            (`layer*.relu`, where `*` also matches dots). All nodes when there is none.
        kind: class of module or name of the operation, as `nn.Conv2d`, "Conv2d" or "add".
        stride: input pixels for one step of the output's width.
        example_inputs, names: as of `describe_nodes`.

    Raises:
        NodeUnknown: a pattern fits no node, or the conditions together leave none.
    """
    nodes = describe_nodes(model, example_inputs, names=names)
    listed = [node.name for node in nodes]
    chosen = {name for pattern in patterns for name in _matches(pattern, listed)} if patterns else set(listed)
    kind_name = kind if isinstance(kind, str) or kind is None else kind.__name__
    found = [node.name for node in nodes if node.name in chosen and _fits(node, kind_name, stride)]
    if not found:
        kinds = sorted({node.operation for node in nodes})
        strides = sorted({node.stride for node in nodes})
        raise NodeUnknown(
            f"No node fits kind={kind_name!r}, stride={stride!r}. Kinds: {kinds}; strides: {strides}."
        )
    return found


def _fits(node: NodeInfo, kind: str | None, stride: int | None) -> bool:
    return kind in (None, node.operation) and stride in (None, node.stride)


def _matches(pattern: str, names: Sequence[str]) -> list[str]:
    if pattern in names:
        return [pattern]
    below = [name for name in names if name.startswith(f"{pattern}.")]
    found = below[-1:] or [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise NodeUnknown(f"No node fits {pattern!r}.{did_you_mean(pattern, names)}", node=pattern)
    return found
