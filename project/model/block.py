"""One transformer layer: attention and mixture of experts, each normalised before and added after."""

from torch import Tensor, nn

from project.model.attention import Attention
from project.model.balance import BalanceReport
from project.model.config import ModelConfig
from project.model.moe import MoE
from project.model.norm import RMSNorm


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config)
        self.moe_norm = RMSNorm(config.d_model, config.norm_eps)
        self.moe = MoE(config)

    def forward(self, x_BSD: Tensor, cos_SC: Tensor, sin_SC: Tensor) -> tuple[Tensor, BalanceReport]:
        x_BSD = x_BSD + self.attention(self.attention_norm(x_BSD), cos_SC, sin_SC)
        out_BSD, report = self.moe(self.moe_norm(x_BSD))
        return x_BSD + out_BSD, report
