"""Moving tokens to their experts and back. Here they are on the same rank: a permutation. Expert parallelism puts
another dispatch in this one's place and changes nothing else.

Shapes: T tokens, D d_model, A assignments per token, N = T * A rows, E experts.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Order(NamedTuple):
    """`sort` lists the rows expert by expert; `unsort` is its inverse."""

    sort_N: Tensor
    unsort_N: Tensor


def order_by(keys_N: Tensor) -> Order:
    sort_N = keys_N.argsort(stable=True)
    return Order(sort_N, torch.empty_like(sort_N).scatter_(0, sort_N, torch.arange(len(sort_N), device=sort_N.device)))


class Permute(torch.autograd.Function):
    """`rows[sort]`. Backward gathers by the inverse: autograd would scatter-add, slower and unordered on a GPU."""

    @staticmethod
    def forward(ctx, rows_ND: Tensor, sort_N: Tensor, unsort_N: Tensor) -> Tensor:
        ctx.save_for_backward(unsort_N)
        return rows_ND.index_select(0, sort_N)

    @staticmethod
    def backward(ctx, grad_ND: Tensor) -> tuple[Tensor, None, None]:
        (unsort_N,) = ctx.saved_tensors
        return grad_ND.index_select(0, unsort_N), None, None


class Spread(torch.autograd.Function):
    """Each token's row once for each of its assignments, in the order `sort`; backward adds them up again."""

    @staticmethod
    def forward(ctx, x_TD: Tensor, sort_N: Tensor, unsort_N: Tensor) -> Tensor:
        ctx.save_for_backward(unsort_N)
        ctx.assignments = len(sort_N) // len(x_TD)
        return x_TD.index_select(0, sort_N // ctx.assignments)

    @staticmethod
    def backward(ctx, grad_ND: Tensor) -> tuple[Tensor, None, None]:
        (unsort_N,) = ctx.saved_tensors
        return grad_ND.index_select(0, unsort_N).unflatten(0, (-1, ctx.assignments)).sum(1), None, None


class LocalDispatch(nn.Module):
    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts

    def forward(self, x_TD: Tensor, experts_TA: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Returns the rows `[N, D]` grouped by expert, how many each expert here has `[E]`, and what `combine` needs
        to bring them back."""
        order = order_by(experts_TA.flatten())
        return Spread.apply(x_TD, *order), self.count(experts_TA), order

    def count(self, experts_TA: Tensor) -> Tensor:
        """Assignments to each expert `[E]`. Not bincount, for which a GPU waits on the host."""
        ones_N = torch.ones(experts_TA.numel(), dtype=torch.int64, device=experts_TA.device)
        return ones_N.new_zeros(self.num_experts).scatter_add_(0, experts_TA.flatten(), ones_N)

    def combine(self, rows_ND: Tensor, weights_TA: Tensor, order: Any) -> Tensor:
        """The experts' outputs `[N, D]`, back in the tokens' order, weighted and summed: `[T, D]`."""
        rows_TAD = Permute.apply(rows_ND, order.unsort_N, order.sort_N).unflatten(0, weights_TA.shape)
        return torch.linalg.vecdot(weights_TA.unsqueeze(-1).to(rows_TAD.dtype), rows_TAD, dim=1)
