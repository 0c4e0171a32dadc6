"""A CPU's kernels on the memory of a device that is not there, which is the host's."""

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch._ops import OpOverload
from torch.utils._pytree import tree_map_only, tree_unflatten

from tests.gpu_check import attention

aten = torch.ops.aten


def alias(tensor: Tensor) -> Tensor:
    """The same memory as a tensor of the host's."""
    storage = tensor.untyped_storage()
    out = torch.empty(0, dtype=tensor.dtype)
    if storage.nbytes() == 0:
        return out.new_empty(tensor.shape)
    raw = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    raw.owner = storage  # a message underway keeps its memory, as NCCL's does
    numbers = torch.frombuffer(raw, dtype=torch.uint8)
    return out.set_(numbers.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A new tensor of the device's with these values and strides."""
    out = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    if tensor.numel():
        alias(out).copy_(tensor)
    return out


def on_the_host(func: OpOverload, leaves: list, form: Any, device: torch.device) -> Any:
    """Computes an operator, whose arguments are flattened. Results are on the device, unless it was asked for another
    one; what the operator changes in place, and returns, is what it was given."""
    given: dict[int, Tensor] = {}

    def host(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.device.type == "cuda":
            here = alias(leaf)
            given[id(here)] = leaf
            return here
        if isinstance(leaf, torch.device):
            return torch.device("cpu") if leaf.type == "cuda" else leaf
        return None if isinstance(leaf, torch.Generator) else leaf

    elsewhere = any(isinstance(leaf, torch.device) and leaf.type != "cuda" for leaf in leaves)
    args, kwargs = tree_unflatten([host(leaf) for leaf in leaves], form)
    result = kernel(func)(*args, **kwargs)
    if elsewhere:
        return result
    return tree_map_only(Tensor, lambda out: given[id(out)] if id(out) in given else on_device(out, device), result)


def kernel(func: OpOverload) -> Callable:
    """What computes the operator. One that CUDA alone has may have a decomposition into others."""
    packet = func.overloadpacket
    if packet in attention.KERNELS:
        return attention.KERNELS[packet](func)
    if packet in SOFTMAX:
        return SOFTMAX[packet](packet)
    if torch._C._dispatch_has_computed_kernel_for_dispatch_key(func.name(), "CPU"):
        return func
    return decomposition_table[func]


def softmax(plain: Callable) -> Callable:
    """Softmax of half precision with a result in single, which is one kernel of CUDA's."""

    def compute(x: Tensor, dim: int, to_float: bool) -> Tensor:
        return plain(x.float() if to_float else x, dim, False)

    return compute


def softmax_backward(plain: Callable) -> Callable:
    def compute(grad: Tensor, out: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
        return plain(grad, out, dim, out.dtype).to(dtype)

    return compute


SOFTMAX: dict[Any, Callable] = {
    aten._softmax: softmax,
    aten._log_softmax: softmax,
    aten._softmax_backward_data: softmax_backward,
    aten._log_softmax_backward_data: softmax_backward,
}
