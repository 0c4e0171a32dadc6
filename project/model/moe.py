"""The mixture of experts: route, dispatch, compute, combine.

Shapes: B batch, S sequence, T = B * S tokens, D d_model, N rows (a token's assignments), E experts.
"""

from torch import Tensor, nn

from project.model.balance import Balance, BalanceReport
from project.model.config import ModelConfig
from project.model.dispatch import LocalDispatch
from project.model.experts import Experts
from project.model.feed_forward import FeedForward
from project.model.router import Router


class MoE(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.balance = Balance(config)
        self.dispatch = LocalDispatch(config.num_experts)
        self.experts = Experts(config)
        shared = config.num_shared_experts
        self.shared = FeedForward(config.d_model, shared * config.d_ff) if shared else None

    def forward(self, x_BSD: Tensor) -> tuple[Tensor, BalanceReport]:
        x_TD = x_BSD.flatten(0, 1)
        routing = self.router(x_TD)
        report = self.balance(routing, batch=len(x_BSD))
        rows_ND, counts_E, journey = self.dispatch(x_TD, routing.experts_TA)
        out_TD = self.dispatch.combine(self.experts(rows_ND, counts_E), routing.weights_TA, journey)
        out_BSD = out_TD.view_as(x_BSD)
        return (out_BSD if self.shared is None else out_BSD + self.shared(x_BSD)), report
