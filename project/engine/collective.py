"""Collectives with a gradient, on plain tensors.

They go through torch's functional collectives: out of place, so that selective recomputation can keep their results.
"""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from project.compat.torch_collectives import all_to_all, sum_over_ranks


def exchange(rows_ND: Tensor, receive: list[int], send: list[int], group: ProcessGroup) -> Tensor:
    """Sends `send[r]` rows to rank r and receives `receive[r]` from it, in the order of ranks."""
    return all_to_all(rows_ND.contiguous(), receive, send, group)


class AllToAll(torch.autograd.Function):
    """`exchange`, whose backward sends the gradients the way the rows came."""

    @staticmethod
    def forward(ctx, rows_ND: Tensor, receive: list[int], send: list[int], group: ProcessGroup) -> Tensor:
        ctx.splits, ctx.group = (send, receive), group
        return exchange(rows_ND, receive, send, group)

    @staticmethod
    def backward(ctx, grad_ND: Tensor) -> tuple[Tensor, None, None, None]:
        receive, send = ctx.splits
        return exchange(grad_ND, receive, send, ctx.group), None, None, None


class SumOverRanks(torch.autograd.Function):
    """The sum over the group, the same on each rank. Every rank computes the same penalty from it and keeps the
    gradient of its own share, so backward is the identity."""

    @staticmethod
    def forward(ctx, x: Tensor, group: ProcessGroup) -> Tensor:
        return sum_over_ranks(x, group)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
