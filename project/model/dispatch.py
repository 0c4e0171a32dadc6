"""Dispatch: moving tokens to their experts and back. Here the experts are on the same rank, and the dispatch is a
permutation. Expert parallelism puts another dispatch in its place and changes nothing else.

Shapes: T tokens, D d_model, A assignments per token, N rows (here N = T * A), E experts.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn


class Dispatch(nn.Module, ABC):
    """The interface that a mixture of experts uses."""

    @abstractmethod
    def forward(self, x_TD: Tensor, experts_TA: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Returns the rows `[N, D]` grouped by expert, the number of rows of each expert on this rank `[E]`, int64, and
        the order by which `combine` brings them back."""

    @abstractmethod
    def combine(self, rows_ND: Tensor, weights_TA: Tensor, order: Any) -> Tensor:
        """The sums `[T, D]` of the experts' outputs `[N, D]`, weighted, in the tokens' order."""

    def dropped(self, experts_TA: Tensor, order: Any) -> Tensor:
        """The fraction of each token's assignments that were dropped, `[T]`."""
        return torch.zeros(len(experts_TA), device=experts_TA.device)


class LocalDispatch(Dispatch):
    """A dispatch among experts that are all on this rank."""

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts

    @abstractmethod
    def rows_per_expert(self, tokens: int, assignments: int) -> int | None:
        """The number of rows that every expert gets from `tokens` tokens with `assignments` assignments each; None if
        it depends on the routing."""

    @abstractmethod
    def over(self, num_experts: int) -> Self:
        """The same kind of dispatch over another number of experts. Slices of experts count as experts."""


class Order(NamedTuple):
    """A permutation and its inverse: `sort_N` lists the rows expert by expert."""

    sort_N: Tensor
    unsort_N: Tensor


def order_by(keys_N: Tensor) -> Order:
    """The stable order by key."""
    sort_N = keys_N.argsort(stable=True)
    return Order(sort_N, torch.empty_like(sort_N).scatter_(0, sort_N, torch.arange(len(sort_N), device=sort_N.device)))


def tally(keys_N: Tensor, kinds: int) -> Tensor:
    """The number of times that each of `0 .. kinds - 1` occurs. bincount would make the host wait for the GPU."""
    return keys_N.new_zeros(kinds).scatter_add_(0, keys_N, torch.ones_like(keys_N))


def weighted_sum(rows_TAD: Tensor, weights_TA: Tensor) -> Tensor:
    """The weighted sum of each token's rows, `[T, D]`."""
    return torch.linalg.vecdot(weights_TA.unsqueeze(-1).to(rows_TAD.dtype), rows_TAD, dim=1)


class Permute(torch.autograd.Function):
    """`rows[sort]`. Backward gathers by the inverse; autograd's scatter-add would be slower and not deterministic on a
    GPU."""

    @staticmethod
    def forward(ctx, rows_ND: Tensor, sort_N: Tensor, unsort_N: Tensor) -> Tensor:
        ctx.save_for_backward(unsort_N)
        return rows_ND.index_select(0, sort_N)

    @staticmethod
    def backward(ctx, grad_ND: Tensor) -> tuple[Tensor, None, None]:
        (unsort_N,) = ctx.saved_tensors
        return grad_ND.index_select(0, unsort_N), None, None


class Spread(torch.autograd.Function):
    """Copies each token's row once for each of its assignments, in the order `sort_N`; backward sums them."""

    @staticmethod
    def forward(ctx, x_TD: Tensor, sort_N: Tensor, unsort_N: Tensor) -> Tensor:
        ctx.save_for_backward(unsort_N)
        ctx.assignments = len(sort_N) // len(x_TD)
        return x_TD.index_select(0, sort_N // ctx.assignments)

    @staticmethod
    def backward(ctx, grad_ND: Tensor) -> tuple[Tensor, None, None]:
        (unsort_N,) = ctx.saved_tensors
        return grad_ND.index_select(0, unsort_N).unflatten(0, (-1, ctx.assignments)).sum(1), None, None


class Dropless(LocalDispatch):
    """A dispatch that drops nothing: every assignment has a row, however many go to one expert."""

    def forward(self, x_TD: Tensor, experts_TA: Tensor) -> tuple[Tensor, Tensor, Order]:
        keys_N = experts_TA.flatten()
        order = order_by(keys_N)
        return Spread.apply(x_TD, *order), tally(keys_N, self.num_experts), order

    def combine(self, rows_ND: Tensor, weights_TA: Tensor, order: Order) -> Tensor:
        rows_ND = Permute.apply(rows_ND, order.unsort_N, order.sort_N)
        return weighted_sum(rows_ND.unflatten(0, weights_TA.shape), weights_TA)

    def rows_per_expert(self, tokens: int, assignments: int) -> int | None:
        return None

    def over(self, num_experts: int) -> Self:
        return type(self)(num_experts)
