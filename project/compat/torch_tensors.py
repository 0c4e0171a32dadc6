"""Tensors, nested or wrapped, and the storage under them."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

__all__ = ["clamp_in_place", "plain_tensors", "scale_in_place", "storage_id", "tree_leaves"]


def plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """Yields the plain tensors under a DTensor, or under one that a collective is still filling."""
    if is_traceable_wrapper_subclass(tensor):
        parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        yield from (plain for part in parts if isinstance(part, Tensor) for plain in plain_tensors(part))
    else:
        yield tensor


def storage_id(storage: torch.UntypedStorage) -> int:
    """Returns a number that tensors over one storage share, on any device: on `meta` the data pointers are all 0."""
    return storage._cdata


def scale_in_place(tensors: list[Tensor], factor: float) -> None:
    """Multiplies each tensor by the factor; on a GPU in one kernel for all."""
    torch._foreach_mul_(tensors, factor)


def clamp_in_place(tensors: list[Tensor], bound: float) -> None:
    """Limits each entry of each tensor to -bound .. bound; on a GPU in one kernel for all."""
    torch._foreach_clamp_min_(tensors, -bound)
    torch._foreach_clamp_max_(tensors, bound)
