"""Expert balance: the losses that spread tokens over the experts, and how the tokens are spread.

The auxiliary loss is per sequence (DeepSeek-V2, arXiv 2405.04434, section 2.2.3): for each sequence `E / (A S) * sum_e
count_e * mean_score_e`, averaged over sequences; 1 when balanced. Per sequence, its value does not depend on how the
batch is cut into microbatches. Per microbatch (Switch, arXiv 2101.03961, section 2.2), the formula is taken over all
the microbatch's tokens: one sequence may be uneven if others make up for it, and the value depends on the cut. The
z-loss is the mean of `logsumexp(logits)^2` (ST-MoE, arXiv 2202.08906).

Shapes: B batch, S sequence, E experts, A assignments per token.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from project.model.router import Routing
from project.spec.model import ModelConfig


class BalanceReport(NamedTuple):
    """One layer's balance over one microbatch.

    `load_E` is the number of assignments to each expert by the router's choice; the others are scalars. `penalty` is
    what joins the loss, `entropy` the mean entropy of a token's scores in nats, and `dropped` the fraction of
    assignments that a capacity left no slot for.
    """

    penalty: Tensor
    auxiliary_loss: Tensor
    z_loss: Tensor
    entropy: Tensor
    dropped: Tensor
    load_E: Tensor


class Balance(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.auxiliary_coefficient = config.auxiliary_coefficient if config.expert_balance == "auxiliary" else 0.0
        self.z_coefficient = config.z_coefficient
        # A sequence's statistics are sums over its tokens. Sequence parallelism puts a sum over ranks in this one's
        # place.
        self.sequence_sum = nn.Identity()
        self.pools_sequences = config.auxiliary_per == "microbatch"

    def forward(self, routing: Routing, dropped_T: Tensor, batch: int) -> BalanceReport:
        experts, top_k = routing.scores_TE.shape[-1], routing.experts_TA.shape[-1]
        chosen_TE = torch.zeros_like(routing.scores_TE).scatter_(-1, routing.experts_TA, 1.0)
        z_T1 = routing.logits_TE.logsumexp(-1, keepdim=True).square()
        entropy_T1 = torch.special.entr(routing.scores_TE.detach()).sum(-1, keepdim=True)
        scalars = (z_T1, entropy_T1, dropped_T.unsqueeze(-1), torch.ones_like(z_T1))
        per_token = torch.cat((chosen_TE, routing.scores_TE, *scalars), dim=-1)
        sums_B = self.sequence_sum(per_token.unflatten(0, (batch, -1)).sum(1))
        if self.pools_sequences:
            sums_B = sums_B.sum(0, keepdim=True)  # the microbatch as one long sequence

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
    """Returns its input unchanged; in backward it gives `penalty` the gradient `scale`. So the penalty joins the loss
    in the layer where it arises and need not be sent to the last stage."""

    @staticmethod
    def forward(ctx, x: Tensor, penalty: Tensor, scale: float | Tensor) -> Tensor:
        ctx.scale, ctx.penalty_like = scale, torch.empty_like(penalty, device="meta")
        ctx.device = penalty.device
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, torch.as_tensor(ctx.scale, dtype=ctx.penalty_like.dtype, device=ctx.device), None


class Balancing:
    """The balance of one pass: the factor on every penalty (the one that divides the loss), and each layer's reports,
    one for each microbatch. It is no dataclass, because modules that wrap a model (FSDP) copy dataclasses among its
    arguments, and the reports would be in the copy."""

    def __init__(self, penalty_scale: float | Tensor = 1.0) -> None:
        self.penalty_scale = penalty_scale
        self.reports: dict[int, list[BalanceReport]] = {}

    def note(self, layer: int, report: BalanceReport) -> None:
        """Records a layer's report, with the penalty detached: `Penalty` has joined it to the stream, and the reports
        live as long as the batch."""
        self.reports.setdefault(layer, []).append(report._replace(penalty=report.penalty.detach()))


def updated_bias(bias_E: Tensor, load_E: Tensor, rate: float) -> Tensor:
    """The router's biases after a step that sent `load_E` tokens to each expert (arXiv 2408.15664): raised by `rate`
    where fewer than the mean went, lowered by `rate` where more did."""
    return bias_E + rate * torch.sign(load_E.mean() - load_E)
