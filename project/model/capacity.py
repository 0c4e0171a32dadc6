"""A dispatch with a capacity: every expert has a fixed number of slots, and assignments without a slot are dropped
(GShard, arXiv 2006.16668, section 2.2; Switch, arXiv 2101.03961, section 2.2).

Tokens compete within groups of G consecutive tokens of a sequence, so that the assignments that are dropped depend on
the text and the router, never on how the batch is cut. Within a group all first choices are served in the order of the
tokens, then all second choices, and so on. A dropped assignment adds nothing to its token; the weights of the others
are not changed.

The number of rows does not depend on the routing, so the host never waits for the GPU to learn it.

Shapes: T tokens, D d_model, A assignments per token, E experts, P groups of G tokens, C slots that an expert has in a
group, Q = E * P queues (one for each expert and group), N = Q * C rows.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from project.model.dispatch import LocalDispatch, order_by, tally, weighted_sum
from project.spec.layer.transformer import expert_slots


class Slots(NamedTuple):
    """The assignment (`t * A + a`) that each row holds, -1 for an empty slot; and the row of each assignment, -1 for a
    dropped one."""

    assignment_N: Tensor
    row_TA: Tensor


class Capacity(LocalDispatch):
    """A dispatch whose rows are expert-major, then by group; an empty slot is a row of zeros."""

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
