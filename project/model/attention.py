"""Causal grouped-query self-attention.

Shapes: B batch, S sequence, D d_model, H query heads, K key/value heads, C head dimension. The numbers of heads are
read off the projections' outputs, so the module also computes with a part of the heads.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from project.model.rope import apply_rope
from project.spec.model import ModelConfig


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        q_out, kv_out = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.wq = nn.Linear(config.d_model, q_out, bias=False)
        self.wk = nn.Linear(config.d_model, kv_out, bias=False)
        self.wv = nn.Linear(config.d_model, kv_out, bias=False)
        self.wo = nn.Linear(q_out, config.d_model, bias=False)

    def forward(self, x_BSD: Tensor, cos_SC: Tensor, sin_SC: Tensor) -> Tensor:
        q_BSHC = self.wq(x_BSD).unflatten(-1, (-1, self.head_dim))
        k_BSKC = self.wk(x_BSD).unflatten(-1, (-1, self.head_dim))
        v_BSKC = self.wv(x_BSD).unflatten(-1, (-1, self.head_dim))
        q_BSHC, k_BSKC = apply_rope(q_BSHC, cos_SC, sin_SC), apply_rope(k_BSKC, cos_SC, sin_SC)
        out_BHSC = F.scaled_dot_product_attention(
            q_BSHC.transpose(1, 2),
            k_BSKC.transpose(1, 2),
            v_BSKC.transpose(1, 2),
            is_causal=True,
            enable_gqa=q_BSHC.shape[2] != k_BSKC.shape[2],
        )
        return self.wo(out_BHSC.transpose(1, 2).flatten(-2))
