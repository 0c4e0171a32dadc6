"""Keeping tokens spread over the experts, and knowing how they are spread.

The auxiliary loss is per sequence (DeepSeek-V2, arXiv 2405.04434, section 2.2.3): for each sequence
`E / (A S) * sum_e count_e * mean_score_e`, averaged over sequences; 1 when balanced. Per sequence it is the same
number however the batch is cut into microbatches. Per microbatch (Switch, arXiv 2101.03961, section 2.2) the formula
is one over all its tokens: a sequence may be uneven where others make up for it, and the number depends on the cut.
The z-loss is the mean of `logsumexp(logits)^2` (ST-MoE, arXiv 2202.08906).

Shapes: B batch, S sequence, E experts, A assignments per token.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from project.model.router import Routing
from project.spec.model import ModelConfig


class BalanceReport(NamedTuple):
    """One layer's balance over one microbatch; all scalars but `load_E`, the number of assignments to each expert by
    the router's choice. `dropped` is the fraction of them that a capacity left no place for."""

    penalty: Tensor
    auxiliary_loss: Tensor
    z_loss: Tensor
    entropy: Tensor
    dropped: Tensor
    load_E: Tensor


def per_sequence(sums_B: Tensor) -> Tensor:
    return sums_B


def per_microbatch(sums_B: Tensor) -> Tensor:
    """As if the microbatch were one long sequence."""
    return sums_B.sum(0, keepdim=True)


POOLS = {"sequence": per_sequence, "microbatch": per_microbatch}


class Balance(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.auxiliary_coefficient = config.auxiliary_coefficient if config.expert_balance == "auxiliary" else 0.0
        self.z_coefficient = config.z_coefficient
        # A sequence's statistics are sums over its tokens. Where a sequence is cut over ranks, this is the place
        # where the parts are added.
        self.sequence_sum = nn.Identity()
        self.pool = POOLS[config.auxiliary_per]

    def forward(self, routing: Routing, dropped_T: Tensor, batch: int) -> BalanceReport:
        experts, top_k = routing.scores_TE.shape[-1], routing.experts_TA.shape[-1]
        chosen_TE = torch.zeros_like(routing.scores_TE).scatter_(-1, routing.experts_TA, 1.0)
        z_T1 = routing.logits_TE.logsumexp(-1, keepdim=True).square()
        entropy_T1 = torch.special.entr(routing.scores_TE.detach()).sum(-1, keepdim=True)
        scalars = (z_T1, entropy_T1, dropped_T.unsqueeze(-1), torch.ones_like(z_T1))
        per_token = torch.cat((chosen_TE, routing.scores_TE, *scalars), dim=-1)
        sums_B = self.pool(self.sequence_sum(per_token.unflatten(0, (batch, -1)).sum(1)))

        count_BE, score_BE, z_B, entropy_B, dropped_B, tokens_B = sums_B.split((experts, experts, 1, 1, 1, 1), dim=-1)
        scale = experts / top_k
        auxiliary_loss = (scale * (count_BE / tokens_B) * (score_BE / tokens_B)).sum(-1).mean()
        z_loss = (z_B / tokens_B).mean()
        penalty = self.auxiliary_coefficient * auxiliary_loss + self.z_coefficient * z_loss
        return BalanceReport(
            penalty,
            auxiliary_loss.detach(),
            z_loss.detach(),
            (entropy_B / tokens_B).mean().detach(),
            (dropped_B / tokens_B).mean().detach(),
            count_BE.sum(0).detach(),
        )


class Penalty(torch.autograd.Function):
    """Returns its input, and in backward gives the penalty its gradient: the penalty joins the loss where it arises
    instead of travelling with the activations to where the loss is."""

    @staticmethod
    def forward(ctx, x: Tensor, penalty: Tensor, scale: float) -> Tensor:
        ctx.scale, ctx.penalty_like = scale, torch.empty_like(penalty, device="meta")
        ctx.device = penalty.device
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, torch.full_like(ctx.penalty_like, ctx.scale, device=ctx.device), None


def updated_bias(bias_E: Tensor, load_E: Tensor, rate: float) -> Tensor:
    """The router's bias after a step that sent `load_E` tokens to each expert (arXiv 2408.15664): up by `rate` where
    less than the mean went, down where more did."""
    return bias_E + rate * torch.sign(load_E.mean() - load_E)
