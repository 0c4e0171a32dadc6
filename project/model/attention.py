"""Causal grouped-query self-attention with rotary position embedding (Su et al., arXiv 2104.09864, in Hugging Face's
half-split form).

Shapes: B batch, S sequence, D d_model, H query heads, K key/value heads, C head dimension. The numbers of heads are
read off the projections' outputs, so the module also computes with a part of the heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.model.norm import RMSNorm
from project.model.width_norm import WidthNorm
from project.spec.model import ModelConfig


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        q_out, kv_out = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.wq = nn.Linear(config.d_model, q_out, bias=config.qkv_bias)
        self.wk = nn.Linear(config.d_model, kv_out, bias=config.qkv_bias)
        self.wv = nn.Linear(config.d_model, kv_out, bias=config.qkv_bias)
        self.wo = nn.Linear(q_out, config.d_model, bias=False)
        self.q_norm = query_or_key_norm(config, q_out) if config.qk_norm else None
        self.k_norm = query_or_key_norm(config, kv_out) if config.qk_norm else None

    def forward(self, x_BSD: Tensor, cos_SC: Tensor, sin_SC: Tensor) -> Tensor:
        q_BSHC = self.in_heads(self.wq(x_BSD), self.q_norm)
        k_BSKC = self.in_heads(self.wk(x_BSD), self.k_norm)
        v_BSKC = self.in_heads(self.wv(x_BSD), None)
        q_BSHC, k_BSKC = apply_rope(q_BSHC, cos_SC, sin_SC), apply_rope(k_BSKC, cos_SC, sin_SC)
        out_BHSC = F.scaled_dot_product_attention(
            q_BSHC.transpose(1, 2),
            k_BSKC.transpose(1, 2),
            v_BSKC.transpose(1, 2),
            is_causal=True,
            enable_gqa=q_BSHC.shape[2] != k_BSKC.shape[2],
        )
        return self.wo(out_BHSC.transpose(1, 2).flatten(-2))

    def in_heads(self, x_BSX: Tensor, norm: nn.Module | None) -> Tensor:
        """The heads `[B, S, X / C, C]` of a projection's output, normalised over all of them or each by itself."""
        if isinstance(norm, WidthNorm):
            return norm(x_BSX).unflatten(-1, (-1, self.head_dim))
        x_BSHC = x_BSX.unflatten(-1, (-1, self.head_dim))
        return x_BSHC if norm is None else norm(x_BSHC)


def query_or_key_norm(config: ModelConfig, width: int) -> nn.Module:
    if config.qk_norm_over == "width":
        return WidthNorm(width, config.norm_eps)
    return RMSNorm(config.head_dim, config.norm_eps)


def rope_table(seq_len: int, head_dim: int, theta: float, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """The cosines and sines `[S, C]`, in fp32 in every precision, so that every layout reads the same table."""
    frequency = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.int64, device=device).float() / head_dim)
    angle_SC = torch.outer(torch.arange(seq_len, device=device).float(), frequency).repeat(1, 2)
    return angle_SC.cos(), angle_SC.sin()


def apply_rope(x_BSHC: Tensor, cos_SC: Tensor, sin_SC: Tensor) -> Tensor:
    """Rotates each position by its row of the tables, which may be longer than the sequence."""
    seq_len, dtype = x_BSHC.shape[1], x_BSHC.dtype
    cos_S1C, sin_S1C = (table[:seq_len].to(dtype).unsqueeze(1) for table in (cos_SC, sin_SC))
    left, right = x_BSHC.chunk(2, dim=-1)
    return x_BSHC * cos_S1C + torch.cat((-right, left), dim=-1) * sin_S1C
