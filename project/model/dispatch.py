"""Dispatch: moving tokens to their experts and back, without drops or with a capacity. Here the experts are on the same
rank, and the dispatch is a permutation. Expert parallelism puts another dispatch in its place and changes nothing else.

Shapes: T tokens, D d_model, A assignments per token, N rows (N = T * A where none is dropped), E experts.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from project.spec.layer.transformer import expert_slots


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


class Slots(NamedTuple):
    """The assignment (`t * A + a`) that each row holds, -1 for an empty slot; and the row of each assignment, -1 for a
    dropped one."""

    assignment_N: Tensor
    row_TA: Tensor


class Capacity(LocalDispatch):
    """A dispatch in which every expert has a fixed number of slots, and assignments without a slot are dropped (GShard,
    arXiv 2006.16668, section 2.2; Switch, arXiv 2101.03961, section 2.2).

    Tokens compete within groups of G consecutive tokens of a sequence, so that the assignments that are dropped depend
    on the text and the router, never on how the batch is cut. Within a group all first choices are served in the order
    of the tokens, then all second choices, and so on. A dropped assignment adds nothing to its token; the weights of
    the others are not changed. The number of rows does not depend on the routing, so the host never waits for the GPU
    to learn it.

    Rows are expert-major, then by group; an empty slot is a row of zeros. Shapes: P groups, C slots that an expert has
    in a group, Q = E * P queues (one for each expert and group), N = Q * C rows.
    """

    def __init__(self, num_experts: int, factor: float, group: int) -> None:
        super().__init__(num_experts)
        self.factor, self.group = factor, group

    def forward(self, x_TD: Tensor, experts_TA: Tensor) -> tuple[Tensor, Tensor, Slots]:
        slots = self.slots(experts_TA)
        rows = len(slots.assignment_N) // self.num_experts
        return Fill.apply(x_TD, *slots), experts_TA.new_full((self.num_experts,), rows), slots

    def combine(self, rows_ND: Tensor, weights_TA: Tensor, order: Slots) -> Tensor:
        return weighted_sum(Collect.apply(rows_ND, *order), weights_TA)

    def dropped(self, experts_TA: Tensor, order: Slots) -> Tensor:
        return (order.row_TA < 0).float().mean(-1)

    def slots(self, experts_TA: Tensor) -> Slots:
        tokens, assignments = experts_TA.shape
        assert tokens % self.group == 0, "refused by legality"
        groups, capacity = tokens // self.group, self.capacity(assignments)
        group_T = torch.arange(tokens, device=experts_TA.device) // self.group
        # Choice-major, so that the stable sort puts every first choice of a queue before any second choice.
        queue_AT = experts_TA.T * groups + group_T
        queues = queue_AT.flatten()
        count_Q = tally(queues, self.num_experts * groups)
        start_Q = count_Q.cumsum(0) - count_Q
        place_AT = (order_by(queues).unsort_N - start_Q[queues]).view_as(queue_AT)
        row_TA = torch.where(place_AT < capacity, queue_AT * capacity + place_AT, -1).T
        return Slots(inverse(row_TA.flatten(), len(count_Q) * capacity), row_TA)

    def capacity(self, assignments: int) -> int:
        return expert_slots(self.factor, self.group, assignments, self.num_experts)

    def rows_per_expert(self, tokens: int, assignments: int) -> int | None:
        return tokens // self.group * self.capacity(assignments)

    def over(self, num_experts: int) -> Self:
        return type(self)(num_experts, self.factor, self.group)


def inverse(row_M: Tensor, rows: int) -> Tensor:
    """For each of `rows` rows the index that has it, or -1. Indices without a row are written behind the last row,
    which is cut off."""
    index_M = torch.arange(len(row_M), device=row_M.device)
    return row_M.new_full((rows + 1,), -1).scatter_(0, torch.where(row_M < 0, rows, row_M), index_M)[:-1]


def taken(rows_ND: Tensor, index_M: Tensor) -> Tensor:
    """`rows[index]`, and zeros where the index is -1. The zeros are filled in, because a NaN times zero is a NaN."""
    return rows_ND.index_select(0, index_M.clamp_min(0)).masked_fill_((index_M < 0).unsqueeze(-1), 0)


class Fill(torch.autograd.Function):
    """Puts the tokens into their slots. Backward gathers the gradients of a token's assignments and sums them."""

    @staticmethod
    def forward(ctx, x_TD: Tensor, assignment_N: Tensor, row_TA: Tensor) -> Tensor:
        ctx.save_for_backward(row_TA)
        return taken(x_TD, assignment_N // row_TA.shape[1])  # -1 stays -1, because // rounds down

    @staticmethod
    def backward(ctx, grad_ND: Tensor) -> tuple[Tensor, None, None]:
        (row_TA,) = ctx.saved_tensors
        return taken(grad_ND, row_TA.flatten()).unflatten(0, row_TA.shape).sum(1), None, None


class Collect(torch.autograd.Function):
    """Takes each assignment's row from its slot. Backward is a gather, too; an empty slot gets a gradient of zeros."""

    @staticmethod
    def forward(ctx, rows_ND: Tensor, assignment_N: Tensor, row_TA: Tensor) -> Tensor:
        ctx.save_for_backward(assignment_N)
        return taken(rows_ND, row_TA.flatten()).unflatten(0, row_TA.shape)

    @staticmethod
    def backward(ctx, grad_TAD: Tensor) -> tuple[Tensor, None, None]:
        (assignment_N,) = ctx.saved_tensors
        return taken(grad_TAD.flatten(0, 1), assignment_N), None, None
