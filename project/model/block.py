"""One transformer layer: attention, then a mixture of experts or, in a dense layer, one feed-forward network. Each has
its norm before it, and its output is added to the residual stream."""

from torch import Tensor, nn

from project.model.attention import Attention
from project.model.balance import Balancing
from project.model.experts import FeedForward
from project.model.moe import MoE
from project.model.norm import RMSNorm
from project.spec.model import ModelConfig


class Block(nn.Module):
    """A layer; `index` is its place in the whole model. A dense layer has no sums of a balance."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config)
        self.dense = index not in config.moe_layers
        if self.dense:
            self.feed_forward_norm = RMSNorm(config.d_model, config.norm_eps)
            self.feed_forward = FeedForward(config.d_model, config.dense_d_ff)
        else:
            self.moe_norm = RMSNorm(config.d_model, config.norm_eps)
            self.moe = MoE(config)

    def forward(
        self, x_BSD: Tensor, cos_SC: Tensor, sin_SC: Tensor, balancing: Balancing
    ) -> tuple[Tensor, Tensor | None]:
        x_BSD = x_BSD + self.attention(self.attention_norm(x_BSD), cos_SC, sin_SC)
        if self.dense:
            return x_BSD + self.feed_forward(self.feed_forward_norm(x_BSD)), None
        out_BSD, sums_BK = self.moe(self.moe_norm(x_BSD), balancing.penalty_scale)
        return x_BSD + out_BSD, sums_BK
