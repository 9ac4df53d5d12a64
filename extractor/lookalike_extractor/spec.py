"""Extractors as JSON: all that is needed to build one again elsewhere and to know that it is the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from .backbones import load_backbone
from .backbones.base import Backbone
from .backbones.checkpoints import digest
from .errors import CheckpointMismatch, RequestInvalid, VerificationFailed
from .extraction import create_feature_extractor
from .heads import Head, add_heads, example_images
from .preprocessing import Preprocessing
from .recipe import Tap

_FORMAT = 1
_PROBED = 8
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ExtractorSpec:
    """An extractor in eval mode: a backbone with its weights, nodes, heads on them, and proofs of identity.

    Attributes:
        backbone: as list_backbones gives it; any name when the model is given at each building.
        nodes: {node: key}.
        heads: {key: taps}; the taps' nodes are keys of `nodes`. Empty: the extractor yields feature maps.
        weights: path of a checkpoint; None means the backbone's own.
        weights_digest: see Backbone.
        preprocessing: what images must go through before; a backbone by name brings its own.
        capture: the way the model became a graph.
        graph: hex SHA-256 over the operations and their order.
        probe: the first values of each output for made images; equal up to rounding wherever it is built.
    """

    backbone: str
    nodes: Mapping[str, str]
    heads: Mapping[str, tuple[Tap, ...]] = field(default_factory=dict)
    weights: str | None = None
    weights_digest: str = ""
    preprocessing: Preprocessing | None = None
    capture: str = ""
    graph: str = ""
    probe: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def completed(self, model: nn.Module | None = None) -> ExtractorSpec:
        """The same with all proofs filled in, from building it here. Arguments and errors are `build`'s."""
        return self._built(model)[1]

    def build(self, model: nn.Module | None = None) -> nn.Module:
        """Builds the extractor and compares it with every proof that is there.

        Args:
            model: the backbone itself with its weights, from whatever library; the spec then needs its
                preprocessing. None takes the backbone of that name.

        Raises:
            CheckpointMismatch: other weights.
            VerificationFailed: another graph or other values.
            BackboneUnknown, WeightsUnavailable, NodeUnknown, RequestInvalid: it cannot be built.
        """
        module, here = self._built(model)
        if self.weights_digest and self.weights_digest != here.weights_digest:
            raise CheckpointMismatch(
                f"the weights of {self.backbone} are {here.weights_digest[:12]}..., "
                f"not {self.weights_digest[:12]}..."
            )
        if self.preprocessing not in (None, here.preprocessing):
            raise VerificationFailed(f"{self.backbone} is preprocessed as {here.preprocessing}")
        if self.graph and self.graph != here.graph:
            raise VerificationFailed(
                f"the graph of {self.backbone} is another; was it built by other versions?"
            )
        for key, values in self.probe.items():
            gap = _gap(values, here.probe.get(key, ()))
            if not gap <= _TOLERANCE:
                raise VerificationFailed(f"{key!r} differs by {gap:g} from what the spec recorded")
        return module

    def to_json(self) -> str:
        """Readable JSON; from_json reads it."""
        return json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> ExtractorSpec:
        """Reads what to_json wrote. Raises RequestInvalid when it is something else."""
        try:
            values = json.loads(text)
            if values.pop("format") != _FORMAT:
                raise RequestInvalid(
                    f"the spec is of another format than {_FORMAT}; a newer version wrote it"
                )
            return cls(**values | _typed(values))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RequestInvalid(f"this is no spec of an extractor: {error}") from None

    def _built(self, model: nn.Module | None) -> tuple[nn.Module, ExtractorSpec]:
        backbone = load_backbone(self.backbone, self.weights) if model is None else self._given(model)
        prep = backbone.preprocessing
        images = example_images(prep.height, prep.width)
        extractor = create_feature_extractor(backbone.module, dict(self.nodes), example_inputs=images).eval()
        module: nn.Module = extractor
        if self.heads:
            module = add_heads(extractor, {key: Head(taps) for key, taps in self.heads.items()})
        with torch.inference_mode():
            outputs = module(images)
        return module, dataclasses.replace(
            self,
            weights_digest=backbone.weights_digest,
            preprocessing=prep.unaligned(),
            capture=extractor.capture.used,
            graph=graph_digest(module),
            probe={key: _probed(value) for key, value in outputs.items()},
        )

    def _given(self, model: nn.Module) -> Backbone:
        if self.preprocessing is None:
            raise RequestInvalid(f"the preprocessing of {self.backbone!r} is not in the spec; add it")
        if self.weights is not None:
            raise RequestInvalid("the spec names weights, and the model brings its own; leave one out")
        return Backbone(self.backbone, model, self.preprocessing, digest(model))


def load_spec(path: Path, model: nn.Module | None = None) -> nn.Module:
    """Builds the extractor of a file with a spec's JSON. Errors are those of `from_json` and `build`."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestInvalid(f"the spec {str(path)!r} cannot be read: {error}") from None
    return ExtractorSpec.from_json(text).build(model)


def graph_digest(module: nn.Module) -> str:
    """Hex SHA-256 over a graph's operations, their arguments and order; "" when the module has no graph."""
    if not isinstance(module, fx.GraphModule):
        return ""
    lines = [f"{n.op} {n.name} {_name(n.target)} {n.args} {n.kwargs}" for n in module.graph.nodes]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _name(target: Any) -> str:
    return target if isinstance(target, str) else f"{target.__module__}.{target.__qualname__}"


def _probed(value: Tensor) -> tuple[float, ...]:
    flat = value.detach().flatten(1).double()
    step = max(1, flat.shape[1] // _PROBED)
    return tuple(flat[0, ::step][:_PROBED].tolist())


def _gap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Largest difference in units of the largest value; infinite when the lengths differ."""
    if len(one) != len(other) or not one:
        return float("inf")
    scale = max(1e-6, *map(abs, one))
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) / scale


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    prep = values["preprocessing"]
    if prep:
        prep = Preprocessing(**prep | {"mean": tuple(prep["mean"]), "std": tuple(prep["std"])})
    return {
        "heads": {key: tuple(Tap(**tap) for tap in taps) for key, taps in values["heads"].items()},
        "probe": {key: tuple(probe) for key, probe in values["probe"].items()},
        "preprocessing": prep,
    }
