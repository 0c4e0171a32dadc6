"""One number between 0 and 1 for each token, by which a network's output is multiplied: Qwen2-MoE's gate of its shared
expert (arXiv 2407.10671).

Shapes: B batch, S sequence, D d_model.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScalarGate(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, dim))

    def forward(self, x_BSD: Tensor) -> Tensor:
        """The gate `[B, S, 1]`, in the dtype of `x`, which the norm before it has cast to that of the products."""
        return F.linear(x_BSD, self.weight.to(x_BSD.dtype)).sigmoid()
