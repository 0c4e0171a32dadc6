"""The router: it chooses each token's experts and their weights.

Shapes: T tokens, D d_model, E experts, A assignments per token (top-k).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.spec.model import ModelConfig


class Routing(NamedTuple):
    """The chosen experts `[T, A]`, their weights `[T, A]`, and the logits and normalised scores `[T, E]` that the
    balance is computed from."""

    experts_TA: Tensor
    weights_TA: Tensor
    logits_TE: Tensor
    scores_TE: Tensor


class Router(nn.Module):
    """A linear router. It computes in at least fp32: in bf16 close scores tie, and ties move tokens between experts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.top_k = config.top_k
        self.score = config.score
        self.norm_top_k = config.norm_top_k
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.d_model))
        # Added to the scores for the choice alone. Updated by `balance.updated_bias`, not by a gradient; zero
        # otherwise.
        self.expert_bias: Tensor
        self.register_buffer("expert_bias", torch.zeros(config.num_experts), persistent=config.expert_balance == "bias")

    def forward(self, x_TD: Tensor) -> Routing:
        wide = torch.promote_types(x_TD.dtype, torch.float32)
        with torch.autocast(x_TD.device.type, enabled=False):
            logits_TE = F.linear(x_TD.to(wide), self.weight.to(wide))
        raw_TE = logits_TE.softmax(-1) if self.score == "softmax" else logits_TE.sigmoid()
        experts_TA = (raw_TE.detach() + self.expert_bias).topk(self.top_k, dim=-1).indices
        weights_TA = raw_TE.gather(-1, experts_TA)
        tiny = torch.finfo(wide).tiny  # all sigmoids may underflow
        if self.norm_top_k:
            weights_TA = weights_TA / weights_TA.sum(-1, keepdim=True).clamp_min(tiny)
        scores_TE = raw_TE if self.score == "softmax" else raw_TE / raw_TE.sum(-1, keepdim=True).clamp_min(tiny)
        return Routing(experts_TA, weights_TA, logits_TE, scores_TE)
