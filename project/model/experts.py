"""SwiGLU feed-forward networks (Shazeer, arXiv 2002.05202): one for all tokens, in dense layers and as shared experts,
and the routed experts, whose matrices are stacked.

Shapes: B batch, S sequence, N rows grouped by expert, D d_model, F d_ff, E experts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.model.norm import compute_dtype
from project.spec.model import ModelConfig


class FeedForward(nn.Module):
    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(d_model, d_ff, bias=False)
        self.w3 = nn.Linear(d_model, d_ff, bias=False)
        self.w2 = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x_BSD: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x_BSD)) * self.w3(x_BSD))


class Experts(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inward = (config.num_experts, config.d_ff, config.d_model)
        outward = (config.num_experts, config.d_model, config.d_ff)
        self.w1 = nn.Parameter(torch.empty(inward))
        self.w3 = nn.Parameter(torch.empty(inward))
        self.w2 = nn.Parameter(torch.empty(outward))

    def forward(self, rows_ND: Tensor, counts_E: Tensor) -> Tensor:
        compute = grouped_swiglu if grouped_gemm_takes(rows_ND, self.w1) else looped_swiglu
        return compute(rows_ND, counts_E, self.w1, self.w3, self.w2)


def grouped_gemm_takes(rows_ND: Tensor, w1_EFD: Tensor) -> bool:
    """True if `grouped_mm` accepts the operands: not fp64, and rows that are multiples of 16 bytes."""
    dtype = compute_dtype(rows_ND)
    return dtype != torch.float64 and all(size * dtype.itemsize % 16 == 0 for size in w1_EFD.shape[1:])


def grouped_swiglu(rows_ND: Tensor, counts_E: Tensor, w1: Tensor, w3: Tensor, w2: Tensor) -> Tensor:
    """Computes all experts in three grouped GEMMs.

    Its time relative to the loop's, measured on one core of an EPYC 9004 in fp32, forward and backward: for one expert
    1.00 (1024 x 4096) and 0.95 (256 x 512), for several 0.84 (4 of 1024 x 4096), 0.74 (32 of 256 x 512) and 0.63 (64 of
    128 x 128). So the loop is used only for operands that grouped_mm refuses.
    """
    dtype = compute_dtype(rows_ND)  # autocast does not cast grouped_mm's operands
    rows_ND, w1, w3, w2 = rows_ND.to(dtype), w1.to(dtype), w3.to(dtype), w2.to(dtype)
    ends = counts_E.cumsum(0).to(torch.int32)
    gate_NF = F.grouped_mm(rows_ND, w1.transpose(1, 2), offs=ends)
    up_NF = F.grouped_mm(rows_ND, w3.transpose(1, 2), offs=ends)
    return F.grouped_mm(F.silu(gate_NF) * up_NF, w2.transpose(1, 2), offs=ends)


def looped_swiglu(rows_ND: Tensor, counts_E: Tensor, w1: Tensor, w3: Tensor, w2: Tensor) -> Tensor:
    """Computes expert after expert; an expert without rows still gets a gradient, of zeros."""
    weights = zip(unstack(w1), unstack(w3), unstack(w2), strict=True)
    parts = rows_ND.split(counts_E.tolist())
    outputs = [
        F.linear(F.silu(F.linear(part, w1_FD)) * F.linear(part, w3_FD), w2_DF)
        for part, (w1_FD, w3_FD, w2_DF) in zip(parts, weights, strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def unstack(weight: Tensor) -> tuple[Tensor, ...]:
    """The experts' matrices. A single expert is a view, because unbind's backward would copy its whole gradient."""
    return (weight.squeeze(0),) if len(weight) == 1 else weight.unbind()
