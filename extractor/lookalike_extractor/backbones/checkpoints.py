"""Checkpoints: read without running code, fitted to a network with a clear answer when they are another's."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lookalike_extractor.errors import CheckpointMismatch, WeightsUnavailable

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_COUNTER = "num_batches_tracked"
_SHOWN = 3


def read_checkpoint(path: Path) -> Mapping[str, Tensor]:
    """Reads a state dict from a safetensors file or from one that torch.save wrote.

    Nothing in the file is executed. A state dict within a dictionary of training state is found, and the
    prefix that distributed training leaves ("module.") is dropped.

    Raises:
        WeightsUnavailable: the file is not there, cannot be read or holds no state dict.
    """
    if not path.is_file():
        raise WeightsUnavailable(f"there is no checkpoint {str(path)!r}")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load_pickled(path)
    except pickle.UnpicklingError:
        raise WeightsUnavailable(
            f"{str(path)!r} holds more than tensors, and reading it would run its code; "
            "save its state_dict() alone, best as safetensors"
        ) from None
    except Exception as error:
        raise WeightsUnavailable(f"the checkpoint {str(path)!r} cannot be read: {error}") from None
    return _state_dict(content, path)


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads a state dict whole.

    Raises:
        CheckpointMismatch: a key is missing, unexpected or of another shape; the first few are named.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith(_COUNTER)]
    strange = [key for key in state if key not in own]
    shapes = [
        f"{key} {list(state[key].shape)} instead of {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    faults = (
        _listed("missing", missing) + _listed("unexpected", strange) + _listed("of another shape", shapes)
    )
    if faults:
        raise CheckpointMismatch(f"{source} does not fit {type(module).__name__}: {'; '.join(faults)}")
    module.load_state_dict(state, strict=False)  # only counters of batches may be missing


def digest(module: nn.Module) -> str:
    """Hex SHA-256 over names, shapes and values of all weights that shape an output."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not name.endswith(_COUNTER):
            total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _load_pickled(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _state_dict(content: Any, path: Path) -> Mapping[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsUnavailable(f"{str(path)!r} holds no state dict (names with tensors)")
    if content and all(key.startswith("module.") for key in content):
        return {key.removeprefix("module."): value for key, value in content.items()}
    return content


def _listed(what: str, keys: Iterable[str]) -> list[str]:
    keys = list(keys)
    if not keys:
        return []
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return [f"{what}: {', '.join(keys[:_SHOWN])}{more}"]
