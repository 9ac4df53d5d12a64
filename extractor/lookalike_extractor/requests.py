"""What the user asks for: nodes by name, each under a key of the answer; found, or refused with advice."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from torch import fx

from lookalike_extractor.capture.observer import Place, places
from lookalike_extractor.capture.trace import Moment, Trace, Traces, nodes_in
from lookalike_extractor.errors import NodeUnknown, RequestInvalid, did_you_mean
from lookalike_extractor.naming import READINGS, Reading

NodeRequest = Sequence[str] | Mapping[str, str]


class NodeNameWarning(UserWarning):
    """A node name that means one node by the documented convention, and another to torchvision."""


def requests_by_mode(
    return_nodes: NodeRequest | None,
    train_return_nodes: NodeRequest | None,
    eval_return_nodes: NodeRequest | None,
) -> dict[str, dict[str, str]]:
    """{"train": {name: key}, "eval": {name: key}} from the three arguments, which exclude one another.

    Raises:
        RequestInvalid: none, too many or half of them are given, or one is empty or names a key twice.
    """
    if (train_return_nodes is None) != (eval_return_nodes is None):
        raise RequestInvalid("Give both train_return_nodes and eval_return_nodes, or return_nodes alone.")
    if (return_nodes is None) == (train_return_nodes is None):
        raise RequestInvalid(
            "Give either return_nodes, or train_return_nodes and eval_return_nodes together."
        )
    if train_return_nodes is not None and eval_return_nodes is not None:
        train = _checked("train_return_nodes", train_return_nodes)
        return {"train": train, "eval": _checked("eval_return_nodes", eval_return_nodes)}
    assert return_nodes is not None
    both = _checked("return_nodes", return_nodes)
    return {"train": both, "eval": both}


def _checked(argument: str, request: NodeRequest) -> dict[str, str]:
    if isinstance(request, str):
        raise RequestInvalid(f"{argument} must be a list or a dict of node names, as [{request!r}].")
    named = {str(n): str(k) for n, k in request.items()} if isinstance(request, Mapping) else {}
    if not isinstance(request, Mapping):
        _refuse_repeats(argument, [str(name) for name in request], "asks twice for node")
        named = {str(name): str(name) for name in request}
    if not named:
        raise RequestInvalid(f"{argument} is empty: name at least one node.")
    _refuse_repeats(argument, named.values(), "gives more than one node the key")
    return named


def _refuse_repeats(argument: str, items: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for item in items:
        if item in seen:
            raise RequestInvalid(f"{argument} {what} {item!r}; each must be different.")
        seen.add(item)


class Resolver:
    """Finds what names mean in the graphs of a model, in one reading of the names."""

    def __init__(self, traces: Traces, reading: Reading) -> None:
        if reading not in READINGS:
            raise RequestInvalid(f"names={reading!r} is not one of {', '.join(map(repr, READINGS))}.")
        self._reading = reading
        self._other: Reading = "torchvision" if reading == "exact" else "exact"
        self._traces = dict(traces.items())
        self._names = {mode: trace.names(reading) for mode, trace in traces.items()}
        self._other_names = {mode: trace.names(self._other) for mode, trace in traces.items()}

    def resolve(self, mode: str, name: str) -> Moment:
        """The value that `name` means in `mode`.

        Raises:
            NodeUnknown: no node and no module that runs has this name.
            RequestInvalid: what it names is not computed from the input, or is no tensor.
        """
        trace = self._traces[mode]
        moment = _lookup(trace, self._names[mode], name)
        if moment is None:
            raise NodeUnknown(self._unknown(mode, name), node=name)
        if not nodes_in(moment.value):
            raise RequestInvalid(
                f"Module {name!r} returns {moment.value!r}, which holds no tensor to extract."
            )
        other = _lookup(trace, self._other_names[mode], name)
        if other is not None and nodes_in(other.value) != nodes_in(moment.value):
            self._warn(mode, name, nodes_in(moment.value)[-1], nodes_in(other.value)[-1])
        return moment

    def place(self, mode: str, name: str) -> Place | None:
        """Where in a run of the model the value of `name` is seen; None where it cannot be."""
        node = self._names[mode].get(name)
        return Place(module=name) if node is None else self._places(mode).get(node)

    @cache  # noqa: B019  a resolver lives as long as one request
    def _places(self, mode: str) -> dict[fx.Node, Place]:
        return places(self._traces[mode])

    def _warn(self, mode: str, name: str, here: fx.Node, there: fx.Node) -> None:
        exact = {node: exact_name for exact_name, node in self._traces[mode].names("exact").items()}
        warnings.warn(
            f"Node {name!r} means {exact.get(here, here.name)!r} with names={self._reading!r}, "
            f"and {exact.get(there, there.name)!r} with names={self._other!r}.",
            NodeNameWarning,
            stacklevel=5,
        )

    def _unknown(self, mode: str, name: str) -> str:
        message = f"There is no node {name!r} in the {mode} graph."
        elsewhere = "eval" if mode == "train" else "train"
        if _lookup(self._traces[elsewhere], self._names[elsewhere], name) is not None:
            how = "ask with train_return_nodes and eval_return_nodes"
            return f"{message} It is in the {elsewhere} graph only: {how}."
        if _lookup(self._traces[mode], self._other_names[mode], name) is not None:
            return f"{message} It exists with names={self._other!r}."
        if any(character in name for character in "*?["):
            return f"{message} Names are not patterns here; select_nodes finds names by pattern."
        return message + did_you_mean(name, {**self._names[mode], **self._traces[mode].exits})


def _lookup(trace: Trace, names: Mapping[str, fx.Node], name: str) -> Moment | None:
    """A node by its full name, else what the module at that path returned."""
    node = names.get(name)
    return trace.exits.get(name) if node is None else Moment(node, node)
