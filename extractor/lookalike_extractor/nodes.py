"""The node table: what each node of a model yields and costs, found on fake tensors without computing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from lookalike_extractor.capture import capture
from lookalike_extractor.capture.trace import Trace
from lookalike_extractor.errors import RequestInvalid
from lookalike_extractor.geometry import Geometry, follow
from lookalike_extractor.inputs import Inputs, example_for, with_batch
from lookalike_extractor.naming import Reading
from lookalike_extractor.operations import AUGMENTED_NAMES
from lookalike_extractor.preservation import preserved
from lookalike_extractor.pruning import Memory


@dataclass(frozen=True)
class NodeInfo:
    """One node, for one image.

    Attributes:
        name: node name.
        operation: class of the module or name of the function that runs there, as "Conv2d" or "add".
        shape: of the output, [1, c, h, w] for most; () where the output is not one tensor.
        dtype: as "float32"; "" where the output is not one tensor.
        stride: input pixels for one step of the output's width; 0 where the output is not a feature map.
        receptive_field: side of the square of input pixels that one place of the map sees through convolution
            and
            pooling; None where that is the whole image, or the output is not a feature map.
        parameters: parameters used at this node, bare ones at the node that reads them.
        flops: floating-point operations of matrix products, convolutions and attention; a multiply-add counts
            two.
        cumulative_flops: the same from the input up to and with this node, counting only what the node needs.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    dtype: str
    stride: int
    receptive_field: int | None
    parameters: int
    flops: int
    cumulative_flops: int


def describe_nodes(
    model: nn.Module, example_inputs: Any = None, *, names: Reading = "exact"
) -> list[NodeInfo]:
    """The nodes of `model` in eval mode, in the order of execution. Works as well for a model on the meta
    device.

    Args:
        model: left untouched.
        example_inputs: a tensor or a tuple of arguments, of which the first image of a batch counts; when
            absent,
            one image as the model's configuration describes it, else [1, 3, 224, 224].
        names: as of `get_graph_node_names`.

    Raises:
        RequestInvalid: the model cannot run on this input.
        CaptureFailed: the model cannot be turned into a graph.
    """
    inputs = with_batch(example_for(model, example_inputs), 1)
    trace = capture(model, example_inputs=inputs).traces.eval
    with preserved(model), _constants_on(model, trace), torch.no_grad():
        model.eval()
        costs = _Costs(model, trace)
        costs.run(inputs)
        return [costs.describe(name, node) for name, node in trace.names(names).items()]


@contextmanager
def _constants_on(model: nn.Module, trace: Trace) -> Iterator[None]:
    model.__dict__.update(trace.constants)  # `preserved` takes them off again
    yield


class _Costs:
    """Runs a graph on fake tensors and keeps what each node yields and costs."""

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self._model = model
        self._graph = trace.graph
        self._values: dict[fx.Node, Any] = {}
        self._flops: dict[fx.Node, int] = {}
        self._watch = _Watch()

    def run(self, inputs: Inputs) -> None:
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            arguments = [tree_map_only(Tensor, fake.from_tensor, value) for value in inputs]
            for image in arguments:
                if isinstance(image, Tensor) and image.dim() == 4:
                    self._watch.know(image, Geometry.of_image(image))
            try:
                with self._watch:
                    _Interpreter(self, self._model, self._graph).run(*arguments)
            except Exception as error:
                shapes = [tuple(value.shape) for value in inputs if isinstance(value, Tensor)]
                raise RequestInvalid(
                    f"{type(self._model).__name__} does not run on {shapes}: {error}"
                ) from error
        self._needs = self._dependencies()

    def note(self, node: fx.Node, value: Any, flops: int) -> None:
        self._values[node], self._flops[node] = value, flops

    @property
    def flops_so_far(self) -> int:
        return self._watch.flops

    def _dependencies(self) -> dict[fx.Node, int]:
        """For each node a set of bits: the costly nodes it needs, also those that act on it in place."""
        memory = Memory.of(self._graph, self._model.get_submodule)
        costly = [node for node, flops in self._flops.items() if flops]
        self._costly = costly
        bit = {node: 1 << number for number, node in enumerate(costly)}
        needs: dict[fx.Node, int] = {}
        changes: dict[Any, int] = {}
        for node in self._graph.nodes:
            need = bit.get(node, 0)
            for source in node.all_input_nodes:
                need |= needs[source]
                for root in memory.shares[source]:
                    need |= changes.get(root, 0)
            needs[node] = need
            for root in memory.overwrites[node]:
                changes[root] = changes.get(root, 0) | need
        return needs

    def _cumulative(self, node: fx.Node) -> int:
        needed = self._needs[node]
        return sum(self._flops[other] for number, other in enumerate(self._costly) if needed >> number & 1)

    def describe(self, name: str, node: fx.Node) -> NodeInfo:
        value = self._values.get(node)
        tensor = value if isinstance(value, Tensor) else None
        geometry = None if tensor is None else self._watch.geometry(tensor)
        stride = geometry.stride_of(tensor.shape) if geometry is not None and tensor is not None else 0
        return NodeInfo(
            name=name,
            operation=self._operation(node),
            shape=() if tensor is None else tuple(int(size) for size in tensor.shape),
            dtype="" if tensor is None else str(tensor.dtype).removeprefix("torch."),
            stride=stride,
            receptive_field=geometry.field if geometry is not None and stride else None,
            parameters=self._parameters(node),
            flops=self._flops.get(node, 0),
            cumulative_flops=self._cumulative(node),
        )

    def _operation(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return type(self._model.get_submodule(str(node.target))).__name__
        if node.op in ("placeholder", "get_attr"):
            return "input" if node.op == "placeholder" else "attribute"
        return AUGMENTED_NAMES.get(node.target) or str(getattr(node.target, "__name__", node.target))

    def _parameters(self, node: fx.Node) -> int:
        if node.op == "call_module":
            return sum(p.numel() for p in self._model.get_submodule(str(node.target)).parameters())
        value = self._values.get(node)
        return value.numel() if node.op == "get_attr" and isinstance(value, nn.Parameter) else 0


class _Interpreter(fx.Interpreter):
    """Runs a graph node by node for `_Costs`."""

    def __init__(self, costs: _Costs, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, garbage_collect_values=False, graph=graph)
        self._costs = costs

    def run_node(self, n: fx.Node) -> Any:
        before = self._costs.flops_so_far
        value = super().run_node(n)
        self._costs.note(n, value, self._costs.flops_so_far - before)
        return value


class _Watch(TorchDispatchMode):
    """Counts the operations, and follows the geometry of feature maps, of everything that runs inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self._known: dict[int, tuple[Tensor, Geometry]] = {}  # with the tensor, so that its id stays its own

    def know(self, tensor: Tensor, geometry: Geometry) -> None:
        self._known[id(tensor)] = tensor, geometry

    def geometry(self, tensor: Tensor) -> Geometry | None:
        return self._known[id(tensor)][1] if id(tensor) in self._known else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        sources = [self._known[id(leaf)] for leaf in tree_leaves((args, kwargs)) if id(leaf) in self._known]
        for result in tree_leaves(out) if sources else ():
            if isinstance(result, Tensor):
                self.know(result, follow(func._overloadpacket.__name__, sources, args, result))
        return out
