"""Stride and receptive field of feature maps, followed through every tensor operation without computing any.

A convolution or pooling multiplies the stride and widens the field (Araujo, Norris and Sim, "Computing
Receptive Fields of Convolutional Neural Networks", Distill 2019). What mixes all places of the map, such as
attention or a mean over the map, makes the field the whole image. Statistics of normalisation layers are not
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import Tensor

_POOLINGS = frozenset({"max_pool2d_with_indices", "max_pool2d", "avg_pool2d"})
_MIXING = frozenset({"bmm", "baddbmm", "cumsum", "sort", "_fft_r2c", "_fft_c2c", "_fft_c2r"})
_REDUCTIONS = frozenset({"mean", "sum", "amax", "max", "var", "var_mean", "linalg_vector_norm"})
_MATRIX_PRODUCTS = frozenset({"mm", "addmm"})


@dataclass(frozen=True)
class Geometry:
    """Where the cells of a map lie: `stride` input pixels apart, each seeing a square of `field` pixels
    (None: all).

    `cells` is height times width of the map; `axes` are those two axes of the tensor, None while it is
    reshaped.
    """

    stride: int = 1
    field: int | None = 1
    cells: int = 1
    axes: tuple[int, int] | None = (2, 3)

    @classmethod
    def of_image(cls, image: Tensor) -> Geometry:
        return cls(cells=image.shape[2] * image.shape[3])

    def stride_of(self, shape: Sequence[int]) -> int:
        """The stride, or 0 where a tensor of `shape` is no map."""
        is_map = len(shape) == 4 and self.axes is not None and self.cells > 1
        return self.stride if is_map else 0


def follow(
    name: str, sources: Sequence[tuple[Tensor, Geometry]], args: Sequence[Any], out: Tensor
) -> Geometry:
    """The geometry of `out`, which aten::`name` makes of the tensors in `sources` (not empty)."""
    tensor, geometry = max(sources, key=lambda source: (source[1].stride, source[1].cells))
    fields = [source.field for _, source in sources]
    geometry = replace(geometry, field=None if None in fields else max(field for field in fields if field))
    if name in _SPECIAL:
        geometry = _SPECIAL[name](geometry, args, out)
    elif name in _POOLINGS:
        geometry = _pooled(geometry, args, name)
    elif name.startswith("upsample"):
        geometry = _rescaled(geometry, tensor.shape[-1], out.shape[-1])
    elif _mixes_everything(name, geometry, tensor, args, out):
        geometry = replace(geometry, field=None)
    return _placed(geometry, tensor, out)


def _convolved(geometry: Geometry, args: Sequence[Any], out: Tensor) -> Geometry:
    weight, step, dilation, transposed = args[1], args[3][-1], args[5][-1], args[6]
    if transposed:
        return _widened(replace(geometry, stride=max(geometry.stride // step, 1)), weight.shape[-1], 1)
    return _widened(geometry, (weight.shape[-1] - 1) * dilation + 1, step)


def _pooled(geometry: Geometry, args: Sequence[Any], name: str) -> Geometry:
    kernel = args[1][-1]
    step = args[2][-1] if len(args) > 2 and args[2] else kernel
    dilation = args[4][-1] if len(args) > 4 and name.startswith("max") else 1
    return _widened(geometry, (kernel - 1) * dilation + 1, step)


def _widened(geometry: Geometry, extent: int, step: int) -> Geometry:
    field = None if geometry.field is None else geometry.field + (extent - 1) * geometry.stride
    return replace(geometry, field=field, stride=geometry.stride * step)


def _rescaled(geometry: Geometry, before: int, after: int) -> Geometry:
    return _widened(replace(geometry, stride=max(geometry.stride * before // after, 1)), 2, 1)


def _sliced(geometry: Geometry, args: Sequence[Any], out: Tensor) -> Geometry:
    axis, step = (args[1] if len(args) > 1 else 0), (args[4] if len(args) > 4 else 1)
    on_width = geometry.axes is not None and axis % args[0].dim() == geometry.axes[1]
    return replace(geometry, stride=geometry.stride * step) if on_width else geometry


def _permuted(geometry: Geometry, args: Sequence[Any], out: Tensor) -> Geometry:
    if geometry.axes is None:
        return geometry
    order = [axis % out.dim() for axis in args[1]]
    return replace(geometry, axes=(order.index(geometry.axes[0]), order.index(geometry.axes[1])))


def _transposed(geometry: Geometry, args: Sequence[Any], out: Tensor) -> Geometry:
    order = list(range(out.dim()))
    first, second = args[1] % out.dim(), args[2] % out.dim()
    order[first], order[second] = second, first
    return _permuted(geometry, (args[0], order), out)


_SPECIAL: dict[str, Callable[[Geometry, Sequence[Any], Tensor], Geometry]] = {
    "convolution": _convolved,
    "slice": _sliced,
    "permute": _permuted,
    "transpose": _transposed,
}


def _mixes_everything(
    name: str, geometry: Geometry, tensor: Tensor, args: Sequence[Any], out: Tensor
) -> bool:
    if name in _MIXING or name.startswith(("_scaled_dot_product", "_adaptive", "adaptive")):
        return True
    if name in _REDUCTIONS:
        return tensor.numel() // max(out.numel(), 1) % geometry.cells == 0
    rows = prod(tensor.shape[:-1])
    return name in _MATRIX_PRODUCTS and rows % geometry.cells != 0  # rows are not the places of the map


def _placed(geometry: Geometry, tensor: Tensor, out: Tensor) -> Geometry:
    """`geometry` with the axes and the number of cells that `out` shows."""
    if out.dim() != 4:
        return replace(geometry, axes=None)
    if geometry.axes is not None and tensor.dim() == 4:
        return replace(geometry, cells=out.shape[geometry.axes[0]] * out.shape[geometry.axes[1]])
    for axes in ((2, 3), (1, 2)):
        if out.shape[axes[0]] * out.shape[axes[1]] == geometry.cells:
            return replace(geometry, axes=axes)
    return geometry
