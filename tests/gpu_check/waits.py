"""Which operators have the host wait for the device inside their CUDA kernels. A list: torch does not tell."""

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

aten = torch.ops.aten

READS = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.equal,
    aten.bincount,
    aten.is_nonzero,
    aten._linalg_check_errors,
}
"""For a value, or for the shape of their result."""
INDEXED = {aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_}
MASKS = (torch.bool, torch.uint8)


def why_it_waits(func: OpOverload, args: tuple, kwargs: dict[str, Any]) -> str | None:
    """None where the host does not wait."""
    packet = func.overloadpacket
    if packet in READS:
        return str(packet)
    if packet in INDEXED and any(isinstance(index, Tensor) and index.dtype in MASKS for index in args[1]):
        scalar = len(args) > 2 and args[2].device.type == "cpu" and args[2].numel() == 1  # torch makes it a masked_fill
        return None if scalar else f"{packet} by a mask"
    if packet is aten.repeat_interleave and kwargs.get("output_size") is None:
        return f"{packet} without output_size"
    if packet is aten._grouped_mm and args[0].dtype != torch.bfloat16:
        return f"{packet} of {args[0].dtype}, whose path reads the rows' ends"
    return None
