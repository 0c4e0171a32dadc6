"""Expert balance: the losses that spread tokens over the experts, and how the tokens are spread.

The auxiliary loss is per sequence (DeepSeek-V2, arXiv 2405.04434, section 2.2.3): for each sequence `E / (A S) * sum_e
count_e * mean_score_e`, averaged over sequences; 1 when balanced. Per sequence, its value does not depend on how the
batch is cut into microbatches. Per microbatch (Switch, arXiv 2101.03961, section 2.2), the formula is taken over all
the microbatch's tokens: one sequence may be uneven if others make up for it, and the value depends on the cut. The
z-loss is the mean of `logsumexp(logits)^2` (ST-MoE, arXiv 2202.08906).

Shapes: B batch, S sequence, T tokens, D d_model, E experts, A assignments per token, K = 2E + 4 sums.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from project.model.router import Routing
from project.spec.model import ModelConfig


class BalanceReport(NamedTuple):
    """The balance of one layer over one microbatch, or of several of each, whose dims come first.

    `load_E` is the number of assignments to each expert by the router's choice; the others are one number each:
    `entropy` is the mean of a token's scores in nats, and `dropped` the fraction of assignments that a capacity left no
    slot for.
    """

    auxiliary_loss: Tensor
    z_loss: Tensor
    entropy: Tensor
    dropped: Tensor
    load_E: Tensor


def balance_report(sums_BK: Tensor, top_k: int) -> BalanceReport:
    """Reads a report off the sums of `Balance`; of several stacked ones all at once."""
    count_BE, score_BE, z_B, entropy_B, dropped_B, tokens_B = of_sequences(sums_BK)
    auxiliary_B = (count_BE.shape[-1] / top_k * (count_BE / tokens_B) * (score_BE / tokens_B)).sum(-1)
    z, entropy, dropped = ((sum_B / tokens_B).squeeze(-1).mean(-1) for sum_B in (z_B, entropy_B, dropped_B))
    return BalanceReport(auxiliary_B.mean(-1), z, entropy, dropped, count_BE.sum(-2))


def of_sequences(sums_BK: Tensor) -> tuple[Tensor, ...]:
    """Each sequence's counts and sums of scores `[B, E]`, and its sums of z, entropy and dropped, and its tokens `[B,
    1]`."""
    experts = (sums_BK.shape[-1] - 4) // 2
    return sums_BK.split((experts, experts, 1, 1, 1, 1), dim=-1)


class Balance(nn.Module):
    """The sums `[B, 2E + 4]` over each sequence's tokens that the balance is computed from, without a graph. `joined`
    lets the penalties' gradients join the backward; they need no more of other tokens than the sums."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k = config.top_k
        self.auxiliary = config.auxiliary_coefficient if config.expert_balance == "auxiliary" else 0.0
        self.z = config.z_coefficient
        # Sequence parallelism puts a sum over ranks in this one's place.
        self.sequence_sum = nn.Identity()
        self.pools_sequences = config.auxiliary_per == "microbatch"

    @torch.no_grad()
    def forward(self, routing: Routing, dropped_T: Tensor, batch: int) -> Tensor:
        chosen_TE = torch.zeros_like(routing.scores_TE).scatter_(-1, routing.experts_TA, 1.0)
        z_T1 = routing.logits_TE.logsumexp(-1, keepdim=True).square()
        entropy_T1 = torch.special.entr(routing.scores_TE).sum(-1, keepdim=True)
        scalars = (z_T1, entropy_T1, dropped_T.unsqueeze(-1), torch.ones_like(z_T1))
        per_token = torch.cat((chosen_TE, routing.scores_TE, *scalars), dim=-1)
        sums_BK = self.sequence_sum(per_token.unflatten(0, (batch, -1)).sum(1))
        return sums_BK.sum(0, keepdim=True) if self.pools_sequences else sums_BK  # the microbatch as one long sequence

    def joined(self, x: Tensor, routing: Routing, sums_BK: Tensor, scale: float | Tensor) -> Tensor:
        """Returns `x`, which the loss depends on, unchanged; its backward adds `scale` times the penalties' gradients
        to the router's."""
        if self.auxiliary:
            x = AuxiliaryLoss.apply(x, routing.scores_TE, self.auxiliary, self.top_k, sums_BK, scale)
        if self.z:
            x = ZLoss.apply(x, routing.logits_TE, self.z, sums_BK, scale)
        return x


class AuxiliaryLoss(torch.autograd.Function):
    """Joins the auxiliary loss to the backward in the layer where it arises, so that it need not be sent to the last
    stage. A score's gradient is `E / (A S) * count_e / S`, over the number of sequences: counts have none."""

    @staticmethod
    def forward(
        ctx, x: Tensor, scores_TE: Tensor, coefficient: float, top_k: int, sums_BK: Tensor, scale: float | Tensor
    ) -> Tensor:
        ctx.save_for_backward(sums_BK)
        ctx.coefficient, ctx.top_k, ctx.scale, ctx.tokens = coefficient, top_k, scale, len(scores_TE)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (sums_BK,) = ctx.saved_tensors
        count_BE, *_, tokens_B = of_sequences(sums_BK)
        each = torch.as_tensor(ctx.scale).to(sums_BK) * ctx.coefficient / len(sums_BK)
        per_score_BE = each * (count_BE.shape[-1] / ctx.top_k * (count_BE / tokens_B)) / tokens_B
        return grad, over_tokens(per_score_BE, ctx.tokens), None, None, None, None


class ZLoss(torch.autograd.Function):
    """Joins the z-loss likewise. A logit's gradient is `2 logsumexp softmax / S`, over the number of sequences."""

    @staticmethod
    def forward(
        ctx, x: Tensor, logits_TE: Tensor, coefficient: float, sums_BK: Tensor, scale: float | Tensor
    ) -> Tensor:
        ctx.save_for_backward(logits_TE, sums_BK)
        ctx.coefficient, ctx.scale = coefficient, scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits_TE, sums_BK = ctx.saved_tensors
        each = torch.as_tensor(ctx.scale).to(sums_BK) * ctx.coefficient / len(sums_BK)
        per_token_T1 = over_tokens(each / of_sequences(sums_BK)[-1], len(logits_TE))
        z_T1 = logits_TE.logsumexp(-1, keepdim=True)
        return grad, per_token_T1 * (2 * z_T1) * (logits_TE - z_T1).exp(), None, None, None


def over_tokens(each_BX: Tensor, tokens: int) -> Tensor:
    """Repeats each sequence's row for each of its tokens here: `[T, X]`."""
    sequences = len(each_BX)
    return each_BX.unsqueeze(1).expand(-1, tokens // sequences, -1).flatten(0, 1)


class Balancing:
    """The balance of one pass: the factor on every penalty (the one that divides the loss), and each layer's sums, one
    for each microbatch. It is no dataclass, because modules that wrap a model (FSDP) copy dataclasses among its
    arguments, and the sums would be in the copy."""

    def __init__(self, penalty_scale: float | Tensor = 1.0) -> None:
        self.penalty_scale = penalty_scale
        self.sums: dict[int, list[Tensor]] = {}

    def note(self, layer: int, sums_BK: Tensor) -> None:
        self.sums.setdefault(layer, []).append(sums_BK)


def updated_bias(bias_E: Tensor, load_E: Tensor, rate: float) -> Tensor:
    """The router's biases after a step that sent `load_E` tokens to each expert (arXiv 2408.15664): raised by `rate`
    where fewer than the mean went, lowered by `rate` where more did."""
    return bias_E + rate * torch.sign(load_E.mean() - load_E)
