"""Root-mean-square layer normalisation (Zhang and Sennrich, arXiv 1910.07467), computed in at least fp32."""

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))
        self.eps = eps

    def forward(self, x_BSD: Tensor) -> Tensor:
        wide = torch.promote_types(x_BSD.dtype, torch.float32)
        normed_BSD = torch.nn.functional.rms_norm(x_BSD.to(wide), x_BSD.shape[-1:], eps=self.eps)
        return (self.weight * normed_BSD).to(compute_dtype(x_BSD))


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which the next matrix product computes. Activations are cast to it at once, so that 16-bit ones are
    also sent in 16 bits."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
