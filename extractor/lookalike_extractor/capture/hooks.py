"""The last resort: run the model as it is, and take what modules return by forward hooks. Modules only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import nn

from lookalike_extractor.capture.interception import Interception
from lookalike_extractor.capture.report import CaptureReport
from lookalike_extractor.inputs import Inputs
from lookalike_extractor.naming import READINGS, Label, Reading
from lookalike_extractor.operations import snapshot
from lookalike_extractor.preservation import preserved


class ModuleCalls(Interception):
    """The calls of one run of a model: leaf modules in order, and how often each module returned."""

    def __init__(self, root: nn.Module, options: dict[str, Any]) -> None:
        super().__init__(root, options)
        self.labels: list[Label] = []
        self.returns: Counter[str] = Counter()

    def ran(self, path: str, args: Any, kwargs: Any, value: Any) -> None:
        self.labels.append(Label(path))
        self.left(path, value)

    def left(self, path: str, value: Any) -> None:
        self.returns[path] += 1

    def targets(self, reading: Reading) -> dict[str, tuple[str, int]]:
        """{name: (path, number of the call)}; the path of a module that is no leaf means its last call."""
        counts: Counter[str] = Counter()
        found = {path: (path, number - 1) for path, number in self.returns.items()}
        for name, label in zip(READINGS[reading](self.labels, self.returns), self.labels, strict=True):
            found[name] = label.scope, counts[label.scope]
            counts[label.scope] += 1
        return found


def module_calls(model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> ModuleCalls:
    """Runs `model` in eval mode on real inputs."""
    calls = ModuleCalls(model, options)
    with preserved(model), torch.no_grad(), torch.random.fork_rng():
        model.eval()
        with calls.watching():
            model(*inputs)
    return calls


class HookedExtractor(nn.Module):
    """Runs the whole model and returns what chosen calls of its modules returned, as copies.

    It shares all of the model's modules, parameters and buffers, under their names, and stops the run
    as soon as it has every value.

    Attributes:
        capture: how the model was captured, and why not otherwise.
    """

    _source: tuple[nn.Module]

    def __init__(
        self, model: nn.Module, requests: Mapping[bool, Mapping[str, tuple[str, int]]], report: CaptureReport
    ) -> None:
        super().__init__()
        for name in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[name] = model.__dict__[name].copy()
        self._source = (model,)  # in a tuple: not a module of its own
        self._requests = requests
        self.capture = report
        self.verification: Any = None
        self.training = model.training

    def train(self, mode: bool = True) -> Self:
        """Switches the mode of all modules, and of the model that they are shared with."""
        self._source[0].train(mode)
        self.training = mode
        return self

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        wanted = self._requests[self.training]
        seen: dict[str, Any] = {}
        calls: Counter[str] = Counter()

        def keep(path: str, value: Any) -> None:
            for key, (target, call) in wanted.items():
                if target == path and calls[path] == call:
                    seen[key] = snapshot(value)
            calls[path] += 1
            if len(seen) == len(wanted):
                raise _Done

        with ExitStack() as stack:
            for path in {target for target, _ in wanted.values()}:
                hook = self.get_submodule(path).register_forward_hook(
                    lambda _, __, value, path=path: keep(path, value)
                )
                stack.callback(hook.remove)
            try:
                self._source[0](*args, **kwargs)
            except _Done:
                return seen
        missing = next(key for key in wanted if key not in seen)
        raise RuntimeError(f"Module {wanted[missing][0]!r} did not run for this input.")


class _Done(Exception):
    """All values are there."""
