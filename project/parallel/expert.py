"""Expert parallelism: each rank of the axis holds some of the experts, and tokens travel to them and back.

Shapes: T tokens here, D d_model, A assignments per token, E experts, L experts on each rank, R ranks of the axis.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel.style import ParallelStyle

from project.model.dispatch import LocalDispatch, Order, Permute, Spread, order_by
from project.model.moe import MoE
from project.parallel.collective import AllToAll, SumOverRanks, exchange


class Journey(NamedTuple):
    """How the rows went out, which is how they come back."""

    order: Order
    regroup: Order | None
    send: list[int]
    receive: list[int]


class AllToAllDispatch(LocalDispatch):
    def __init__(self, num_experts: int, mesh: DeviceMesh) -> None:
        super().__init__(num_experts)
        self.ranks, self.group = mesh.size(), mesh.get_group()

    def forward(self, x_TD: Tensor, experts_TA: Tensor) -> tuple[Tensor, Tensor, Any]:
        order = order_by(experts_TA.flatten())
        counts_E = self.count(experts_TA)
        even = [self.num_experts // self.ranks] * self.ranks
        sent_RL = counts_E.unflatten(0, (self.ranks, -1))
        received_RL = exchange(counts_E, even, even, self.group).unflatten(0, (self.ranks, -1))
        send, receive = torch.stack((sent_RL.sum(1), received_RL.sum(1))).tolist()
        rows_ND = AllToAll.apply(Spread.apply(x_TD, *order), receive, send, self.group)
        regroup = by_expert(received_RL, sum(receive))
        if regroup is not None:
            rows_ND = Permute.apply(rows_ND, *regroup)
        return rows_ND, received_RL.sum(0), Journey(order, regroup, send, receive)

    def combine(self, rows_ND: Tensor, weights_TA: Tensor, journey: Journey) -> Tensor:
        if journey.regroup is not None:
            rows_ND = Permute.apply(rows_ND, journey.regroup.unsort_N, journey.regroup.sort_N)
        rows_ND = AllToAll.apply(rows_ND, journey.send, journey.receive, self.group)
        return super().combine(rows_ND, weights_TA, journey.order)


def by_expert(received_RL: Tensor, rows: int) -> Order | None:
    """Rows arrive rank by rank and within a rank expert by expert; the order that puts them expert by expert. One
    expert needs none."""
    if received_RL.shape[1] == 1:
        return None
    experts_RL = torch.arange(received_RL.shape[1], device=received_RL.device).expand_as(received_RL)
    return order_by(experts_RL.flatten().repeat_interleave(received_RL.flatten(), output_size=rows))


class DispatchOverRanks(ParallelStyle):
    """Puts the all-to-all in the place of a `MoE`'s local dispatch."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        assert isinstance(module, MoE)
        module.dispatch = AllToAllDispatch(module.dispatch.num_experts, device_mesh)
        return module


class SummedOverRanks(ParallelStyle):
    """Adds a module's output over the axis: the statistics of a sequence that is cut over it."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        group = device_mesh.get_group()
        module.register_forward_hook(lambda module, args, output: SumOverRanks.apply(output, group))
        return module
