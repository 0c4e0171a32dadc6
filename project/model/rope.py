"""Rotary position embedding (Su et al., arXiv 2104.09864), in Hugging Face's half-split form.

Shapes: S sequence, C head dimension, B batch, H heads.
"""

import torch
from torch import Tensor


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
