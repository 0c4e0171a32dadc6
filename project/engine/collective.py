"""Collectives with a gradient, on plain tensors.

They go through torch's functional collectives: out of place, so that selective recomputation can keep their results.
"""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

functional = torch.ops._c10d_functional


def exchange(rows_ND: Tensor, receive: list[int], send: list[int], group: ProcessGroup) -> Tensor:
    """Sends `send[r]` rows to rank r and receives `receive[r]` from it, in the order of ranks."""
    out = functional.all_to_all_single(rows_ND.contiguous(), receive, send, group.group_name)
    return functional.wait_tensor(out)


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
        return functional.wait_tensor(functional.all_reduce(x, "sum", group.group_name))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
