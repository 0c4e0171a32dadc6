"""Fills a part that was built on the meta device with this rank's weights, each drawn by its global name."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

Draw = Callable[[str, torch.Size, int | None], Tensor]


def local_tensor(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def local_slices(parameter: Tensor) -> tuple[slice, ...]:
    """Returns which part of the whole parameter this rank holds."""
    if not isinstance(parameter, DTensor):
        return tuple(slice(0, size) for size in parameter.shape)
    (shard,) = parameter.__create_chunk_list__()
    return tuple(slice(start, start + size) for start, size in zip(shard.offsets, shard.sizes, strict=True))


@torch.no_grad()
def materialize(part: nn.Module, device: torch.device, draw: Draw) -> None:
    """Gives the part storage and fills its parameters. `draw(name, shape, None)` returns a whole parameter. A parameter
    of three dims is a stack of matrices, of which only this rank's are drawn, by `draw(name, shape[1:], index)`."""
    part.to_empty(device=device)
    for name, parameter in part.named_parameters():
        here, slices = local_tensor(parameter), local_slices(parameter)
        if parameter.ndim == 3:
            for row, index in enumerate(range(slices[0].start, slices[0].stop)):
                here[row].copy_(draw(name, parameter.shape[1:], index)[slices[1:]])
        else:
            here.copy_(draw(name, parameter.shape, None)[slices])
