"""The mixture of experts: route, dispatch, compute, combine.

Shapes: B batch, S sequence, T = B * S tokens, D d_model, N rows (one for each assignment), E experts.
"""

from torch import Tensor, nn

from project.model.balance import Balance
from project.model.dispatch import Capacity, Dispatch, Dropless, LocalDispatch
from project.model.experts import Experts, FeedForward
from project.model.router import Router
from project.model.scalar_gate import ScalarGate
from project.spec.model import ModelConfig


class MoE(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.balance = Balance(config)
        self.dispatch: Dispatch = local_dispatch(config)
        self.experts = Experts(config)
        shared = config.num_shared_experts
        self.shared = FeedForward(config.d_model, shared * config.d_ff) if shared else None
        self.shared_gate = ScalarGate(config.d_model) if config.shared_gate else None

    def forward(self, x_BSD: Tensor, penalty_scale: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
        """Returns the output, in whose backward the penalties' gradients join, and the sums `[B, 2E + 4]` of its
        balance."""
        x_TD = x_BSD.flatten(0, 1)
        routing = self.router(x_TD)
        rows_ND, counts_E, order = self.dispatch(x_TD, routing.experts_TA)
        sums_BK = self.balance(routing, self.dispatch.dropped(routing.experts_TA, order), batch=len(x_BSD))
        weights_TA = self.balance.joined(routing.weights_TA, routing, sums_BK, penalty_scale)
        out_TD = self.dispatch.combine(self.experts(rows_ND, counts_E), weights_TA, order)
        out_BSD = out_TD.view_as(x_BSD)
        if self.shared is None:
            return out_BSD, sums_BK
        shared_BSD = self.shared(x_BSD)
        return out_BSD + (shared_BSD if self.shared_gate is None else self.shared_gate(x_BSD) * shared_BSD), sums_BK


def local_dispatch(config: ModelConfig) -> LocalDispatch:
    if config.capacity_factor is None:
        return Dropless(config.num_experts)
    return Capacity(config.num_experts, config.capacity_factor, config.capacity_group)
