"""Watching one run of a model: every module call and every tensor function, with the label of its node."""

from __future__ import annotations

import dis
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx._symbolic_trace import _wrapped_fns_to_patch
from torch.overrides import TorchFunctionMode, is_tensor_method_or_property
from torch.utils._pytree import tree_leaves

from lookalike_extractor.naming import Label, operation_name
from lookalike_extractor.torchvision_ops import torchvision_ops
from lookalike_extractor.tracing import is_leaf

_TORCH = str(Path(torch.__file__).parent)
_BINARY = dis.opmap["BINARY_OP"]
_SYMBOLS = {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "**": "pow"} | {
    "@": "matmul",
    "&": "and_",
    "|": "or_",
    "^": "xor",
    "<<": "lshift",
    ">>": "rshift",
    "[]": "getitem",
}


class Interception(TorchFunctionMode):
    """Sees what `root` does while `watching`. Subclasses act in `called`, `ran` and `left`.

    What happens inside leaf modules, leaf functions and other threads is not looked at.
    """

    def __init__(self, root: nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self._paths = {module: path for path, module in root.named_modules()}
        self._root, self._options = root, options
        self._thread = threading.get_ident()
        self._inside_leaf = False
        self.scope = ""

    def called(self, label: Label, function: Callable[..., Any], args: Any, kwargs: Any, value: Any) -> None:
        """A tensor function has returned `value`."""

    def ran(self, path: str, args: Any, kwargs: Any, value: Any) -> None:
        """The leaf module at `path` has returned `value`."""

    def left(self, path: str, value: Any) -> None:
        """The module at `path`, which is no leaf, has returned `value`."""

    def run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Runs a tensor function or a leaf; subclasses may look around it."""
        return function(*args, **kwargs)

    @contextmanager
    def watching(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(_replaced(nn.Module, "__call__", self._module_call(nn.Module.__call__)))
            for namespace, name, function in _leaf_functions(self._root, self._options):
                stack.enter_context(_replaced_item(namespace, name, self._leaf_function(function)))
            stack.enter_context(self)
            yield

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside_leaf:
            return func(*args, **kwargs)
        value = self.run(func, args, kwargs)
        if _has_tensor(value) or getattr(func, "__name__", "") == "__setitem__":
            self.called(Label(self.scope, _operation(func, sys._getframe(1))), func, args, kwargs, value)
        return value

    def _module_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            path = self._paths.get(module)
            if not path or self._inside_leaf or threading.get_ident() != self._thread:
                return original(module, *args, **kwargs)
            if is_leaf(module, self._options.get("leaf_modules", ())):
                value = self._as_leaf(functools.partial(original, module), args, kwargs)
                self.ran(path, args, kwargs, value)
                return value
            caller, self.scope = self.scope, path
            try:
                value = original(module, *args, **kwargs)
                self.left(path, value)
                return value
            finally:
                self.scope = caller

        return call

    def _leaf_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside_leaf or threading.get_ident() != self._thread:
                return function(*args, **kwargs)
            value = self._as_leaf(function, args, kwargs)
            if _has_tensor(value):
                self.called(Label(self.scope, operation_name(function)), function, args, kwargs, value)
            return value

        return call

    def _as_leaf(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self._inside_leaf = True
        try:
            return self.run(function, args, kwargs)
        finally:
            self._inside_leaf = False


def _leaf_functions(root: nn.Module, options: dict[str, Any]) -> list[tuple[dict[str, Any], str, Any]]:
    """Where to find functions that are run as they are: marked by `fx.wrap`, or of torchvision.ops."""
    marked = [(space, name, space.get(name)) for (_, name), space in _wrapped_fns_to_patch.items()]
    members = [member for ops in torchvision_ops() for member in vars(ops).items()]
    public = [value for name, value in members if not name.startswith("_")]
    functions = {value for value in public if callable(value) and not isinstance(value, type)}
    functions |= set(options.get("autowrap_functions", ()))
    forwards = (getattr(module.forward, "__globals__", {}) for module in root.modules())
    spaces = {id(space): space for space in forwards}.values()
    found = [(s, n, v) for s in spaces for n, v in list(s.items()) if callable(v) and _is_among(v, functions)]
    return [entry for entry in marked if callable(entry[2])] + found


def _is_among(value: Any, functions: set[Any]) -> bool:
    try:
        return value in functions
    except TypeError:  # not hashable
        return False


def _operation(function: Any, frame: FrameType | None) -> str:
    """The name of an operation as the source has it: `x + y` is an add, and so is `x += y`."""
    while frame is not None and frame.f_code.co_filename.startswith(_TORCH):
        frame = frame.f_back
    if frame is not None and frame.f_code.co_code[frame.f_lasti] == _BINARY:
        symbol = dis._nb_ops[frame.f_code.co_code[frame.f_lasti + 1]][1]  # type: ignore[attr-defined]
        return _SYMBOLS.get(symbol.removesuffix("="), operation_name(function))
    if getattr(function, "__name__", "") == "__get__":
        return "getattr"
    return operation_name(function)


def is_method(function: Any) -> bool:
    return bool(is_tensor_method_or_property(function))


def _has_tensor(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(value))


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def _replaced_item(namespace: dict[str, Any], name: str, value: Any) -> Iterator[None]:
    original = namespace[name]
    namespace[name] = value
    try:
        yield
    finally:
        namespace[name] = original
