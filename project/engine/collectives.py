"""Collectives within forward and backward: each a function of autograd whose backward is the mirror.

Shapes: B batch, S sequence of one rank, R ranks of the group, N rows, D width.
"""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from project.compat.torch_internals import all_to_all, gather_rows, scatter_sums, sum_over_ranks
from project.engine import one_round


class GatherSequence(torch.autograd.Function):
    """The whole sequence `[B, R * S, ...]` of the ranks' shards `[B, S, ...]`. Backward sums the gradients of the ranks
    and gives each those of its shard."""

    @staticmethod
    def forward(ctx, x_BSD: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return gathered(x_BSD, group)

    @staticmethod
    def backward(ctx, grad_BSD: Tensor) -> tuple[Tensor, None]:
        return scattered(grad_BSD, ctx.group), None


class ScatterSequence(torch.autograd.Function):
    """This rank's shard `[B, S, ...]` of the sum over the ranks of their `[B, R * S, ...]`; backward gathers."""

    @staticmethod
    def forward(ctx, x_BSD: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return scattered(x_BSD, group)

    @staticmethod
    def backward(ctx, grad_BSD: Tensor) -> tuple[Tensor, None]:
        return gathered(grad_BSD, ctx.group), None


def gathered(x_BSD: Tensor, group: ProcessGroup) -> Tensor:
    shards_RBSD = rows_gathered(x_BSD, group).unflatten(0, (group.size(), len(x_BSD)))
    return shards_RBSD.transpose(0, 1).flatten(1, 2)


def scattered(x_BSD: Tensor, group: ProcessGroup) -> Tensor:
    shards_RBSD = x_BSD.unflatten(1, (group.size(), -1)).transpose(0, 1)
    return sums_scattered(shards_RBSD.flatten(0, 1), group)


def rows_gathered(x: Tensor, group: ProcessGroup) -> Tensor:
    return one_round.all_gather(x, group.group_name) if x.device.type == "cpu" else gather_rows(x, group)


def sums_scattered(x: Tensor, group: ProcessGroup) -> Tensor:
    return one_round.reduce_scatter(x, group.group_name) if x.device.type == "cpu" else scatter_sums(x, group)


class SumOverRanks(torch.autograd.Function):
    """The sum over the ranks of their `x`, which each of them uses; backward sums the gradients of all those uses."""

    @staticmethod
    def forward(ctx, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return sum_over_ranks(x, group)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return sum_over_ranks(grad.contiguous(), ctx.group), None


class AllToAll(torch.autograd.Function):
    """Sends `send[r]` rows to rank r and receives `receive[r]` from it, in the order of ranks. Backward sends the
    gradients the way the rows came."""

    @staticmethod
    def forward(ctx, rows_ND: Tensor, receive: list[int], send: list[int], group: ProcessGroup) -> Tensor:
        ctx.splits, ctx.group = (send, receive), group
        return all_to_all(rows_ND.contiguous(), receive, send, group)

    @staticmethod
    def backward(ctx, grad_ND: Tensor) -> tuple[Tensor, None, None, None]:
        receive, send = ctx.splits
        return all_to_all(grad_ND.contiguous(), receive, send, ctx.group), None, None, None
