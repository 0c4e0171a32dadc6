"""Root-mean-square normalisation of a whole width, of which a module may hold a part: OLMoE's norm of queries and keys
over all heads (arXiv 2409.02060).

Shapes: D the width that is here, after any other dims.
"""

import torch
from torch import Tensor, nn

from project.model.norm import compute_dtype


class WidthNorm(nn.Module):
    """`dim` is the whole width, whose mean square the norm divides by, however much of it is here. It computes in at
    least fp32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))
        self.dim, self.eps = dim, eps
        # Tensor parallelism puts a sum over ranks in this one's place.
        self.sum_of_squares = nn.Identity()

    def forward(self, x_D: Tensor) -> Tensor:
        wide_D = x_D.to(torch.promote_types(x_D.dtype, torch.float32))
        squares_1 = self.sum_of_squares(wide_D.square().sum(-1, keepdim=True))
        normed_D = wide_D * torch.rsqrt(squares_1 / self.dim + self.eps)
        return (self.weight * normed_D).to(compute_dtype(x_D))
