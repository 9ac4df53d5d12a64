"""Symbolic tracing that sees augmented and item assignments, and notes where each node comes from."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.node import Argument, Target

from lookalike_extractor.capture.trace import Trace
from lookalike_extractor.errors import RequestInvalid
from lookalike_extractor.naming import Label, operation_name
from lookalike_extractor.operations import AUGMENTED, AUGMENTED_NAMES
from lookalike_extractor.torchvision_ops import torchvision_modules, torchvision_ops


def is_leaf(module: nn.Module, further: Iterable[type[nn.Module]] = ()) -> bool:
    """Whether `module` is run as it is: one of torch.nn, of torchvision.ops, or of the `further` classes."""
    own = module.__module__.startswith(("torch.nn", "torch.ao.nn")) and not isinstance(module, nn.Sequential)
    return own or isinstance(module, (*torchvision_modules(), *further))


class NodeProxy(fx.Proxy):
    """A proxy that records `x += y` and `x[i] = y` as the in-place operations they are."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_method", "__setitem__", (self, index, value), {})


def _record_augmented(method: str) -> None:
    function = AUGMENTED[method][0]

    def augmented(self: NodeProxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    setattr(NodeProxy, method, augmented)


for _method in AUGMENTED:
    _record_augmented(_method)


class NodeTracer(fx.Tracer):
    """An `fx.Tracer` that also notes where each node comes from and what each module returns.

    Args:
        leaf_modules: further module classes to run as they are.
        autowrap_modules, autowrap_functions, param_shapes_constant: as of `torch.fx.Tracer`.
    """

    def __init__(
        self,
        autowrap_modules: Iterable[Any] = (),
        autowrap_functions: Iterable[Callable[..., Any]] = (),
        param_shapes_constant: bool = False,
        leaf_modules: Iterable[type[nn.Module]] | Mapping[type[nn.Module], Any] = (),
    ) -> None:
        wrapped_modules = tuple(dict.fromkeys((*autowrap_modules, math, *torchvision_ops())))
        super().__init__(wrapped_modules, tuple(autowrap_functions), param_shapes_constant)
        self.leaf_modules = tuple(leaf_modules)
        self._scope = ""

    def capture(self, model: nn.Module, concrete_args: dict[str, Any] | None = None) -> Trace:
        """Traces `model` in the mode it is in. Leaves constants on the model: use inside `preserved`."""
        self._thread = threading.get_ident()
        self._parameters = {id(parameter): name for name, parameter in model.named_parameters()}
        self._buffers = {id(buffer): name for name, buffer in model.named_buffers()}
        self.result = Trace(fx.Graph())
        before = set(model.__dict__)
        self.result.graph = self.trace(model, concrete_args=concrete_args)
        added = [name for name in model.__dict__ if name not in before]
        self.result.constants = {name: model.__dict__[name] for name in added}
        return self.result

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_leaf(m, self.leaf_modules)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:  # another thread's own business, while modules are patched
            return forward(*args, **kwargs)
        caller, path = self._scope, self.path_of_module(m)
        self._scope = path
        try:
            leaf = self.is_leaf_module(m, path)
            value = self.create_proxy("call_module", path, args, kwargs) if leaf else forward(*args, **kwargs)
            self.result.leave(path, self._nodes_of(value), self._latest)
            return value
        finally:
            self._scope = caller

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        if not isinstance(attr_val, nn.Parameter) or threading.get_ident() != self._thread:
            return attr_val
        name = self._parameters.get(id(attr_val))
        if name is not None and name not in parameter_proxy_cache:
            factory = self._parameter_proxy(name, attr_val) if self.param_shapes_constant else None
            parameter_proxy_cache[name] = self.create_proxy(
                "get_attr", name, (), {}, proxy_factory_fn=factory
            )
        return attr_val if name is None else parameter_proxy_cache[name]

    def _parameter_proxy(self, name: str, parameter: nn.Parameter) -> Callable[[fx.Node], fx.Proxy]:
        return lambda node: fx.proxy.ParameterProxy(self, node, name, parameter)

    def create_arg(self, a: Any) -> Argument:
        if isinstance(a, Tensor):  # the base class searches all parameters or buffers each time
            name = self._parameters.get(id(a)) or self._buffers.get(id(a))
            if name is not None:
                return self.create_node("get_attr", name, (), {})
        return super().create_arg(a)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return NodeProxy(node, self)

    def create_node(self, kind: str, target: Target, *args: Any, **kwargs: Any) -> fx.Node:
        self._latest = super().create_node(kind, target, *args, **kwargs)
        return self._latest

    def create_proxy(
        self,
        kind: str,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any | None = None,
        proxy_factory_fn: Callable[[fx.Node], fx.Proxy] | None = None,
    ) -> fx.Proxy:
        proxy = super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)
        operation = (
            "" if kind == "call_module" else AUGMENTED_NAMES.get(target) or operation_name(name or target)
        )
        self.result.labels[proxy.node] = Label(self._scope, operation)
        return proxy

    def _nodes_of(self, value: Any) -> Any:
        return fx.node.map_aggregate(value, lambda item: item.node if isinstance(item, fx.Proxy) else item)


def tracer_options(tracer_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """A checked copy of the user's `tracer_kwargs`."""
    options = dict(tracer_kwargs or {})
    known = {"autowrap_modules", "autowrap_functions", "param_shapes_constant", "leaf_modules"}
    if unknown := sorted(set(options) - known):
        raise RequestInvalid(f"tracer_kwargs has no {unknown[0]!r}; it takes {', '.join(sorted(known))}.")
    return options
