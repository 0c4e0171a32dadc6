"""A CUDA device that is not there: real CUDA tensors, whose memory is the host's, computed on by the CPU's kernels.

With the libraries of `stubs` torch allocates, frees and copies CUDA tensors as ever. What it cannot do is launch a
kernel. `PretendedDevice` is below autograd and autocast, so both are CUDA's own; it takes each operator before its
kernel, and has the CPU's compute on the same memory. So a whole program runs with its real values, and what CUDA asks
for is checked on the way:

- tensors of an operator are on one device (torch's rule, which CUDA's kernels hold);
- where the host reads what the device computes, it waits, and `Seen` notes where;
- where bytes are copied between host and device, too.

Collectives: `collectives`.
"""

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tests.gpu_check import collectives
from tests.gpu_check.host_kernels import on_the_host
from tests.gpu_check.seen import Seen
from tests.gpu_check.waits import INDEXED, why_it_waits

aten = torch.ops.aten

WITHOUT_KERNEL = {
    aten.empty,
    aten.empty_strided,
    aten.empty_like,
    aten.new_empty,
    aten.new_empty_strided,
    aten.set_,
    aten.resize_,
    aten.record_stream,
    aten.is_pinned,
    aten.lift_fresh,
    aten.transpose_,
    aten.t_,
    aten.squeeze_,
    aten.unsqueeze_,
    aten.as_strided_,
    aten.detach_,
    aten.is_same_size,
}
"""Operators that launch no kernel and read no number, so that CUDA's own runs. Views are others."""
COPIES = {aten._to_copy, aten.copy_}
TAKES_NO_HOST_SCALAR = {aten.cat, aten.stack}
"""Others take a tensor of the host's without dims among the device's."""
IMPLICIT = "CompositeImplicitAutograd"
FAKE = torch._C._TorchDispatchModeKey.FAKE


class PretendedDevice(TorchDispatchMode):
    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if any(hasattr(kind, "__tensor_flatten__") for kind in types):
            return NotImplemented  # a DTensor's operators come here one by one
        if not isinstance(func, OpOverload) or torch._C._get_dispatch_mode(FAKE):  # shapes alone, as DTensor asks for
            return func(*args, **kwargs)
        if func.namespace in ("c10d", "_c10d_functional"):
            return collectives.carried_out(func, args, kwargs)
        leaves, form = tree_flatten((args, kwargs))
        devices = {leaf.device for leaf in leaves if isinstance(leaf, Tensor) and leaf.device.type == "cuda"}
        asked = [leaf for leaf in leaves if isinstance(leaf, torch.device) and leaf.type == "cuda"]
        if not devices and not asked:
            return func(*args, **kwargs)
        if func._can_decompose() and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), IMPLICIT):
            with self:  # below autograd an operator that is made of others comes whole
                return func.decompose(*args, **kwargs)
        packet = func.overloadpacket
        if packet is aten.lift_fresh:  # torch.tensor and the like, which have copied already
            self.seen.copied("host to device", "torch.tensor")
        if func.is_view or packet in WITHOUT_KERNEL:
            return func(*args, **kwargs)
        if packet in COPIES:
            self.look_at_copy(packet, args, kwargs)
        else:
            self.look(func, leaves, args, kwargs)
        return on_the_host(func, leaves, form, asked[0] if asked else next(iter(devices)))

    def look(self, func: OpOverload, leaves: list, args: tuple, kwargs: dict) -> None:
        """Notes waits, and an index of the host's, which is copied. Raises torch's error for tensors on several
        devices."""
        packet = func.overloadpacket
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        host = [tensor for tensor in tensors if tensor.device.type == "cpu"]
        with_dims = [tensor for tensor in host if tensor.ndim or packet in TAKES_NO_HOST_SCALAR]
        if with_dims and packet in INDEXED:
            self.seen.copied("host to device", f"an index of {func}")
        elif with_dims or len({tensor.device for tensor in tensors} - {torch.device("cpu")}) > 1:
            found = sorted({str(tensor.device) for tensor in tensors})
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {' and '.join(found)} "
                f"({func} of {[tuple(tensor.shape) for tensor in tensors]})"
            )
        if reason := why_it_waits(func, args, kwargs):
            self.seen.waited(reason)

    def look_at_copy(self, packet: Any, args: tuple, kwargs: dict) -> None:
        if packet is aten.copy_:
            target, source = args[0].device.type, args[1].device.type
            free = (args[2] if len(args) > 2 else kwargs.get("non_blocking", False)) and args[0].is_pinned()
        else:
            source = args[0].device.type
            target = torch.device(kwargs.get("device") or source).type
            free = kwargs.get("non_blocking", False)  # its target is pinned
        if "meta" in (target, source) or source == target:
            return
        if target == "cuda":
            self.seen.copied("host to device", str(packet))
        elif free:
            self.seen.copied("device to host", str(packet))
        else:
            self.seen.waited(f"{packet} to the host")
