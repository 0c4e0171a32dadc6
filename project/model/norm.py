"""Root-mean-square layer normalisation (Zhang and Sennrich, arXiv 1910.07467), computed in at least fp32.

Shapes: D the normalised width, after any other dims.
"""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))
        self.eps = eps

    def forward(self, x_D: Tensor) -> Tensor:
        wide = torch.promote_types(x_D.dtype, torch.float32)
        normed_D = torch.nn.functional.rms_norm(x_D.to(wide), x_D.shape[-1:], eps=self.eps)
        return (self.weight * normed_D).to(compute_dtype(x_D))


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which the next matrix product computes. Activations are cast to it at once, so that 16-bit ones are
    also sent in 16 bits."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
