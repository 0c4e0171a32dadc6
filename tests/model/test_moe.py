"""The mixture of experts is the weighted sum of its experts, however the rows are sorted and grouped."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from project.model.experts import grouped_swiglu, looped_swiglu
from project.model.moe import MoE
from project.spec.model import ModelConfig

CONFIG = ModelConfig(d_model=16, d_ff=24, num_experts=4, top_k=2)


def built(config: ModelConfig) -> MoE:
    torch.manual_seed(0)
    moe = MoE(config)
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return moe


def token_by_token(moe: MoE, x_BSD: Tensor) -> Tensor:
    out = torch.zeros_like(x_BSD)
    routing = moe.router(x_BSD.flatten(0, 1))
    chosen_BSA = routing.experts_TA.unflatten(0, x_BSD.shape[:2])
    weights_BSA = routing.weights_TA.unflatten(0, x_BSD.shape[:2])
    for b, s in torch.cartesian_prod(torch.arange(x_BSD.shape[0]), torch.arange(x_BSD.shape[1])).tolist():
        for expert, weight in zip(chosen_BSA[b, s], weights_BSA[b, s], strict=True):
            w1, w3, w2 = moe.experts.w1[expert], moe.experts.w3[expert], moe.experts.w2[expert]
            out[b, s] += weight * (w2 @ (F.silu(w1 @ x_BSD[b, s]) * (w3 @ x_BSD[b, s])))
    return out


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_the_moe_s_output_is_the_weighted_sum_of_experts_token_by_token(top_k: int, score: str) -> None:
    moe = built(replace(CONFIG, top_k=top_k, score=score)).double()
    x_BSD = torch.randn(2, 5, CONFIG.d_model, dtype=torch.float64)
    torch.testing.assert_close(moe(x_BSD)[0], token_by_token(moe, x_BSD))


def test_a_shared_expert_sees_every_token() -> None:
    moe = built(replace(CONFIG, num_shared_experts=1)).double()
    x_BSD = torch.randn(2, 5, CONFIG.d_model, dtype=torch.float64)
    wanted = token_by_token(moe, x_BSD) + moe.shared(x_BSD)
    torch.testing.assert_close(moe(x_BSD)[0], wanted)


@pytest.mark.parametrize("counts", [[3, 0, 5], [8, 0, 0], [0, 0, 0]])
def test_the_grouped_gemm_and_the_loop_are_the_same_function(counts: list[int]) -> None:
    torch.manual_seed(0)
    rows = torch.randn(sum(counts), 16)
    weights = [torch.randn(3, 24, 16), torch.randn(3, 24, 16), torch.randn(3, 16, 24)]
    results = []
    for compute in (grouped_swiglu, looped_swiglu):
        leaves = [tensor.clone().requires_grad_() for tensor in (rows, *weights)]
        out = compute(leaves[0], torch.tensor(counts), *leaves[1:])
        (out * torch.linspace(0, 1, out.numel()).view_as(out)).sum().backward()
        results.append([out, *(leaf.grad for leaf in leaves)])
    for grouped, looped in zip(*results, strict=True):
        torch.testing.assert_close(grouped, looped, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_a_moe_passes_gradcheck() -> None:
    """Compares gradients with finite differences."""
    moe = built(CONFIG).double()
    x_BSD = torch.randn(1, 3, CONFIG.d_model, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: moe(x, penalty_scale=0.0)[0], (x_BSD,), eps=1e-6, atol=1e-5)
