"""The load of the experts. Shapes: L layers, E experts."""

import torch
from torch import Tensor
from torchmetrics import Metric


class ExpertLoad(Metric):
    """The fraction of each layer's assignments that went to each expert, over the run.

    Its inputs are the same on all ranks, so it is not synchronised: torchmetrics would sum over every rank of the
    world, over pipeline stages and tensor-parallel ranks alike.
    """

    full_state_update = False
    assignments_LE: Tensor

    def __init__(self, num_layers: int, num_experts: int) -> None:
        super().__init__(sync_on_compute=False)
        zeros = torch.zeros(num_layers, num_experts, dtype=torch.float64)
        self.add_state("assignments_LE", default=zeros, dist_reduce_fx="sum")

    def update(self, load_LE: Tensor) -> None:
        self.assignments_LE += load_LE.detach().to(self.assignments_LE)

    def compute(self) -> Tensor:
        """The fractions `[L, E]`; each row sums to 1, and is NaN for a layer without assignments."""
        return self.assignments_LE / self.assignments_LE.sum(-1, keepdim=True)

    def by_layer(self) -> list[list[float] | None]:
        """The fractions for JSON, with None for a layer without experts."""
        assigned_L = self.assignments_LE.any(-1).tolist()
        return [row if assigned else None for row, assigned in zip(self.compute().tolist(), assigned_L, strict=True)]


def imbalance(load_LE: Tensor) -> Tensor:
    """The busiest expert's load over the mean load, `[L]`: from 1 (even) to E (all tokens to one expert)."""
    return load_LE.amax(-1) / load_LE.mean(-1)
