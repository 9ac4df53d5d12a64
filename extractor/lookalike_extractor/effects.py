"""What a node of a graph does to memory: which of its arguments it may overwrite, and which its value may
share.

Nothing is run to find out. Tensor functions are looked up in PyTorch's own operator schemas, which annotate
both; code that is not known is taken to do either.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import fx, nn

from lookalike_extractor.capture.trace import nodes_in
from lookalike_extractor.operations import MUTATING
from lookalike_extractor.torchvision_ops import torchvision_modules


@dataclass(frozen=True)
class Effect:
    """`overwrites`: arguments may be changed. `shares`: the value may be (a view of) arguments."""

    overwrites: bool = False
    shares: bool = False


FRESH = Effect()
VIEW = Effect(shares=True)
IN_PLACE = Effect(overwrites=True, shares=True)
UNKNOWN = IN_PLACE

# Modules whose value may be their input itself, or a view of it.
_VIEW_MODULES = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.modules.dropout._DropoutNd,
)
# Functions of which the schemas do not say that they may return their input.
_VIEW_NAMES = frozenset(
    {
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "alpha_dropout",
        "feature_dropout",
        "feature_alpha_dropout",
    }
    | {
        "type_as",
        "stochastic_depth",
        "pad",
        "getattr",
        "getitem",
        "next",
        "iter",
        "broadcast_tensors",
        "einsum",
    }
    | {"float", "half", "double", "bfloat16", "to", "cpu", "cuda", "atleast_1d", "atleast_2d", "atleast_3d"}
)
_PLAIN_ATTRIBUTES = frozenset({"shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "training"})
_PURE_METHODS = frozenset(
    {"size", "dim", "numel", "stride", "item", "new_zeros", "new_ones", "new_tensor", "type"}
)
# Modules none of whose functions overwrites an argument unasked.
_KNOWN_ORIGINS = (
    "torch.nn.functional",
    "torchvision.ops.",
    "torchvision.models.swin_transformer",
    "timm.layers.",
    "math",
    "builtins",
)


def effect(node: fx.Node, module_at: Callable[[str], nn.Module]) -> Effect:
    """What `node` does to the tensors among its arguments; `module_at` finds the module at a path."""
    if node.op == "call_module":
        return module_effect(module_at(str(node.target)))
    if node.op == "call_method":
        return _method_effect(str(node.target))
    if node.op == "call_function":
        assert callable(node.target)
        return _function_effect(node.target, node.args, node.kwargs)
    return FRESH


def affected(node: fx.Node, what: Effect) -> list[fx.Node]:
    """The arguments that the effect `what` is about: the first, or all where code is not known."""
    out = node.kwargs.get("out")
    if isinstance(out, fx.Node):
        return [out]
    known = node.op == "call_method" or what != UNKNOWN or node.target in MUTATING or _is_torch(node.target)
    return nodes_in(node.args[0]) if known and node.args else node.all_input_nodes


def _class_effect(kind: type[nn.Module]) -> Effect | None:
    if issubclass(kind, (*_VIEW_MODULES, *torchvision_modules("StochasticDepth", "Permute"))):
        return VIEW
    if kind.__module__.startswith(("torch.nn.", "torch.ao.nn.")) or kind.__module__.startswith(
        "torchvision.ops."
    ):
        return FRESH
    return None


def module_effect(module: nn.Module) -> Effect:
    """What a leaf module does to its input."""
    if isinstance(module, nn.Sequential):
        return _chain_effect(module)
    if getattr(module, "inplace", False) is True:
        return IN_PLACE
    return _class_effect(type(module)) or UNKNOWN


def _chain_effect(modules: nn.Sequential) -> Effect:
    """The first module that makes a fresh tensor shields the input from those after it."""
    overwrites = False
    for module in modules:
        what = module_effect(module)
        overwrites |= what.overwrites
        if not what.shares:
            return Effect(overwrites=overwrites)
    return Effect(overwrites=overwrites, shares=True)


def _method_effect(name: str) -> Effect:
    if name.endswith("_") and not name.endswith("__"):
        return IN_PLACE
    if name == "__setitem__" or (name.startswith("__i") and name[3:-2] in _AUGMENTED_NAMES):
        return IN_PLACE
    if name in _PURE_METHODS:
        return FRESH
    return _operator_effect(name.strip("_")) or VIEW


_AUGMENTED_NAMES = frozenset(
    {
        "add",
        "sub",
        "mul",
        "matmul",
        "truediv",
        "div",
        "floordiv",
        "mod",
        "pow",
        "and",
        "or",
        "xor",
        "lshift",
        "rshift",
    }
)


def _function_effect(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Effect:
    name = getattr(function, "__name__", "")
    if function in MUTATING or kwargs.get("out") is not None or _asks_in_place(function, args, kwargs):
        return IN_PLACE
    if function is getattr and args[1] in _PLAIN_ATTRIBUTES:
        return FRESH
    if name in _VIEW_NAMES:
        return VIEW
    if getattr(function, "__module__", "") in {"_operator", "operator"}:
        return FRESH
    if _is_torch(function):
        return IN_PLACE if name.endswith("_") and not name.endswith("__") else _operator_effect(name) or FRESH
    return VIEW if str(getattr(function, "__module__", "")).startswith(_KNOWN_ORIGINS) else UNKNOWN


def _is_torch(function: Any) -> bool:
    origin = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
    return str(origin) == "torch" or str(origin).startswith(("torch.", "torchvision.ops."))


def _asks_in_place(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if "inplace" in kwargs:
        return kwargs["inplace"] is not False
    position = _inplace_position(function)
    return position is not None and len(args) > position and args[position] is not False


@cache
def _inplace_position(function: Callable[..., Any]) -> int | None:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # built-in functions have no signature, and no such flag
        return None
    return names.index("inplace") if "inplace" in names else None


@cache
def _operator_effect(name: str) -> Effect | None:
    """From the schemas of all overloads of `aten::name`; None when there is no such operator."""
    if name in _VIEW_NAMES:
        return VIEW
    schemas = [
        s for s in torch._C._jit_get_schemas_for_operator(f"aten::{name}") if "out" not in s.overload_name
    ]
    if not schemas:
        return None
    annotated = [
        argument.alias_info for schema in schemas for argument in schema.arguments if argument.alias_info
    ]
    if any(alias.is_write for alias in annotated):
        return IN_PLACE
    return VIEW if annotated else FRESH
