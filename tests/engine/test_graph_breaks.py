"""What stands in the way of `torch.compile`: the graph breaks of a block's forward. The numbers may only fall."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from project.model.balance import Balancing
from project.model.block import Block
from project.spec.model import ModelConfig

SIZES = {"num_layers": 2, "d_model": 64, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "d_ff": 64}
BREAKS = {"dropless": 0, "a capacity": 5, "a dense layer": 0}
"""By kind of block, without parallelism."""
KINDS = {
    "dropless": ModelConfig(**SIZES, max_seq_len=16),
    "a capacity": ModelConfig(**SIZES, max_seq_len=16, capacity_factor=1.0, capacity_group=4),
    "a dense layer": ModelConfig(**SIZES, max_seq_len=16, num_dense_layers=2),
}


def passed(block: Callable[..., Any], of: Block, config: ModelConfig) -> list[Tensor]:
    """The output, and the gradients of input and weights."""
    cos_SC = torch.ones(config.max_seq_len, config.head_dim)
    generator = torch.Generator().manual_seed(1)
    x_BSD = torch.randn(2, config.max_seq_len, config.d_model, generator=generator).bfloat16().requires_grad_()
    out_BSD, _ = block(x_BSD, cos_SC, cos_SC, Balancing())
    gradients = torch.autograd.grad(out_BSD.float().square().sum(), [x_BSD, *of.parameters()])
    return [out_BSD.detach(), *gradients]


def block_of(config: ModelConfig) -> Block:
    """In bfloat16: of other dtypes dynamo knows no grouped_mm."""
    block = Block(config, 1).bfloat16()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in block.parameters():
            weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    torch._dynamo.reset()
    return block


@pytest.mark.filterwarnings("ignore")  # dynamo itself touches what warns
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_breaks_a_graph_no_more_often_than_it_did(kind: str) -> None:
    config = KINDS[kind]
    block = block_of(config)
    cos_SC = torch.ones(config.max_seq_len, config.head_dim)
    x_BSD = torch.randn(2, config.max_seq_len, config.d_model, dtype=torch.bfloat16, requires_grad=True)
    explained = torch._dynamo.explain(block)(x_BSD, cos_SC, cos_SC, Balancing())
    said = [f"{each.reason}: {each.user_stack[-1]}" for each in explained.break_reasons if each.user_stack]
    assert explained.graph_break_count == BREAKS[kind], said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_block_computes_what_it_does_eagerly(kind: str, backend: str) -> None:
    """Inductor keeps in fp32 what stands between two products: fewer roundings to bfloat16, of 2^-8 each."""
    config = KINDS[kind]
    block = block_of(config)
    eager, compiled = (passed(one, block, config) for one in (block, torch.compile(block, backend=backend)))
    for of_eager, of_compiled in zip(eager, compiled, strict=True):
        error = (of_compiled.float() - of_eager.float()).norm() / of_eager.float().norm()
        assert error <= (0 if backend == "aot_eager" else 2**-7), error
