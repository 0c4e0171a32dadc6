"""The dispatch of expert parallelism: an all-to-all sends tokens to the ranks of their experts, another one back.

Expert tensor parallelism cuts each expert along d_ff into S slices, each on a rank of its own. A SwiGLU expert is the
sum of its slices' outputs, so the dispatch treats a slice as an expert and an assignment as S of them, whose outputs
`combine` adds up as it does those of experts.

Shapes: T tokens here, D d_model, A assignments per token, E experts, S slices of each, L slices on each rank,
R = E * S / L ranks.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from project.engine.collectives import AllToAll
from project.model.dispatch import Dispatch, LocalDispatch, Order, Permute, order_by


class Journey(NamedTuple):
    """The order and the numbers of rows of the way out, by which `combine` brings them back."""

    order: Any
    regroup: Order | None
    send: list[int]
    receive: list[int]


class AllToAllDispatch(Dispatch):
    """`local` is the dispatch that one rank with all experts would use. Rank `i * etp + s` of the group holds slice s
    of the experts `i * L .. (i + 1) * L - 1`."""

    def __init__(self, local: LocalDispatch, group: ProcessGroup, ep: int, etp: int) -> None:
        super().__init__()
        self.local = local.over(local.num_experts * etp)
        self.group, self.ranks, self.etp = group, ep * etp, etp
        self.experts_here = local.num_experts // ep

    def forward(self, x_TD: Tensor, experts_TA: Tensor) -> tuple[Tensor, Tensor, Journey]:
        slices_TA = self.slices(experts_TA)
        rows_ND, counts, order = self.local(x_TD, slices_TA)
        sent_RL = counts.unflatten(0, (self.ranks, -1))
        fixed = self.local.rows_per_expert(*slices_TA.shape)
        if fixed is None:
            even = [self.experts_here] * self.ranks
            received_RL = AllToAll.apply(counts, even, even, self.group).unflatten(0, (self.ranks, -1))
            send, receive = torch.stack((sent_RL.sum(1), received_RL.sum(1))).tolist()
        else:  # every rank knows the splits beforehand, so that no GPU waits for its host
            received_RL = sent_RL
            send = receive = [fixed * self.experts_here] * self.ranks
        rows_ND = AllToAll.apply(rows_ND, receive, send, self.group)
        regroup = by_expert(received_RL, sum(receive))
        if regroup is not None:
            rows_ND = Permute.apply(rows_ND, *regroup)
        return rows_ND, received_RL.sum(0), Journey(order, regroup, send, receive)

    def combine(self, rows_ND: Tensor, weights_TA: Tensor, order: Journey) -> Tensor:
        if order.regroup is not None:
            rows_ND = Permute.apply(rows_ND, order.regroup.unsort_N, order.regroup.sort_N)
        rows_ND = AllToAll.apply(rows_ND, order.send, order.receive, self.group)
        return self.local.combine(rows_ND, weights_TA.repeat_interleave(self.etp, dim=1), order.order)

    def dropped(self, experts_TA: Tensor, order: Journey) -> Tensor:
        return self.local.dropped(experts_TA, order.order)

    def slices(self, experts_TA: Tensor) -> Tensor:
        """`[T, A * S]`: each assignment's slices, numbered in the order of the ranks that hold them."""
        rank, within = experts_TA // self.experts_here * self.etp, experts_TA % self.experts_here
        slice_S = torch.arange(self.etp, device=experts_TA.device)
        return ((rank.unsqueeze(-1) + slice_S) * self.experts_here + within.unsqueeze(-1)).flatten(1)


def by_expert(received_RL: Tensor, rows: int) -> Order | None:
    """Returns the order that sorts the received rows by expert; they arrive by rank and within a rank by expert. None
    for one expert, which needs no sorting."""
    if received_RL.shape[1] == 1:
        return None
    experts_RL = torch.arange(received_RL.shape[1], device=received_RL.device).expand_as(received_RL)
    return order_by(experts_RL.flatten().repeat_interleave(received_RL.flatten(), output_size=rows))
